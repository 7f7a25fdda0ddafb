// Vectors of float32 in the width the processor has, and what is done to them: conversion, exp, GELU, SiLU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
#define XENC_BF16_DOT 1
#endif
#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512VNNI__)
#define XENC_INT8_DOT 1
#endif

namespace {

using c10::BFloat16;
using c10::Half;
using Vec = at::vec::Vectorized<float>;  // 16 lanes with AVX-512, 8 with AVX2

constexpr int kLanes = Vec::size();

inline Vec load(const float* from) { return Vec::loadu(from); }
inline void store(float* to, Vec value) { value.store(to); }

#if defined(CPU_CAPABILITY_AVX512)

inline Vec load(const BFloat16* from) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline Vec load(const Half* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline __m256i to_bfloat16(Vec value) {
#if defined(XENC_BF16_DOT)
  return (__m256i)_mm512_cvtneps_pbh(value);
#else
  return at::vec::cvtfp32_bf16(value);
#endif
}
inline void store(BFloat16* to, Vec value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bfloat16(value));
}
inline void store(Half* to, Vec value) {
  const __m256i halves = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}
inline float largest(Vec value) { return _mm512_reduce_max_ps(value); }
inline Vec larger(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // of a number and none, either
inline float total(Vec value) { return _mm512_reduce_add_ps(value); }

// 2^x for x <= 126: a polynomial on [-0.5, 0.5], relative error 2e-7, or 1e-4 where a half-precision
// number comes of it; below -149 it is 0.
template <bool Exact>
inline Vec exp2_of(Vec x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Vec part = _mm512_sub_ps(x, whole);
  Vec power(Exact ? 0.00132764719f : 0.0558282f);
  if constexpr (Exact) {
    power = fmadd(power, part, Vec(0.00967554099f));
    power = fmadd(power, part, Vec(0.0555071328f));
    power = fmadd(power, part, Vec(0.240221986f));
    power = fmadd(power, part, Vec(0.693147176f));
    power = fmadd(power, part, Vec(1.0f));
  } else {
    power = fmadd(power, part, Vec(0.2401397f));
    power = fmadd(power, part, Vec(0.6931429f));
    power = fmadd(power, part, Vec(1.0f));
  }
  return _mm512_scalef_ps(power, whole);
}
template <bool Exact>
inline Vec inverse(Vec x) {
  if constexpr (Exact) return Vec(1.0f) / x;
  return _mm512_rcp14_ps(x);
}

#else  // AVX2

inline Vec load(const BFloat16* from) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline Vec load(const Half* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store(BFloat16* to, Vec value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), at::vec::cvtfp32_bf16(value));
}
inline void store(Half* to, Vec value) {
  const __m128i halves = _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
}
inline Vec larger(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // of a number and none, either
inline float largest(Vec value) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return at::vec::maximum(a, b); }, value);
}
inline float total(Vec value) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, value);
}
template <bool Exact>
inline Vec exp2_of(Vec x) {
  return (x * Vec(0.693147180559945f)).exp_u20();
}
template <bool Exact>
inline Vec inverse(Vec x) {
  return Vec(1.0f) / x;
}

#endif

// What follows a matrix product.
enum class Activation : int64_t { none = 0, gelu = 1, gelu_tanh = 2, silu = 3 };

// erf by Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26: absolute error 1.5e-7.
template <bool Exact>
inline Vec gelu(Vec x) {
  const Vec distance = x.abs() * Vec(0.707106781186548f);
  const Vec t = inverse<Exact>(fmadd(distance, Vec(0.3275911f), Vec(1.0f)));
  Vec series(1.061405429f);
  series = fmadd(series, t, Vec(-1.453152027f));
  series = fmadd(series, t, Vec(1.421413741f));
  series = fmadd(series, t, Vec(-0.284496736f));
  series = fmadd(series, t, Vec(0.254829592f));
  const Vec tail = series * t * exp2_of<Exact>(distance * distance * Vec(-1.44269504088896f));  // erfc(|x| / sqrt 2)
  const Vec half = x * Vec(0.5f);
  // x >= 0: x/2 (2 - tail); x < 0: x/2 tail
  return fmadd(half.abs(), Vec(1.0f) - tail, half);
}

// x sigmoid(factor x).
template <bool Exact>
inline Vec gated(Vec x, Vec argument) {
  const Vec bounded = at::vec::minimum(argument * Vec(-1.44269504088896f), Vec(126.0f));
  return x * inverse<Exact>(Vec(1.0f) + exp2_of<Exact>(bounded));
}

// By 2^x: its error of 2e-7 is absolute, so near 0 it is no small part of the value.
inline Vec tanh_of(Vec x) {
  const Vec bounded = at::vec::clamp(x * Vec(2.88539008177793f), Vec(-126.0f), Vec(126.0f));
  return Vec(1.0f) - Vec(2.0f) / (Vec(1.0f) + exp2_of<true>(bounded));
}

template <bool Exact>
inline Vec activated(Vec x, Activation kind) {
  switch (kind) {
    case Activation::gelu:
      return gelu<Exact>(x);
    case Activation::gelu_tanh:  // Hendrycks and Gimpel, arXiv:1606.08415: tanh(u) = 2 sigmoid(2 u) - 1
      return gated<Exact>(x, x * fmadd(x * x, Vec(0.0713548162726f), Vec(1.59576912160573f)));
    case Activation::silu:
      return gated<Exact>(x, x);
    default:
      return x;
  }
}

}  // namespace
