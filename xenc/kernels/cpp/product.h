// Matrix products in registers: a few rows of the left operand against a panel of the right one.
//
// A panel holds kPanel columns of the right operand, in the order in which the product reads them:
// [steps][columns][depth], where depth is how many numbers one instruction multiplies and sums: 1 for
// float32, 2 for bfloat16 (VDPBF16PS), 4 for int8 (VPDPBUSD).
#pragma once

#include "vector.h"

namespace {

#if defined(CPU_CAPABILITY_AVX512)
constexpr int kMostVectors = 4;  // 6 x 4 sums, 4 of the right operand and one of the left: 29 of 32 registers
#else
constexpr int kMostVectors = 2;  // 6 x 2, 2 and one: 15 of 16
#endif
constexpr int kRows = 6;
constexpr int kPanel = kMostVectors * kLanes;

// How numbers are multiplied: float32, or something narrower that is widened as it is read.
template <class Stored>
struct Widened {
  using Left = float;
  using Right = Stored;
  using Sum = Vec;
  static constexpr int depth = 1;
  static Sum zero() { return Vec(0.0f); }
  static Vec right(const Right* from) { return load(from); }
  static Sum add(const Left* left, Vec right, Sum sum) { return at::vec::fmadd(Vec(*left), right, sum); }
};

#if defined(XENC_BF16_DOT)
struct BFloat16Pairs {
  using Left = BFloat16;
  using Right = BFloat16;
  using Sum = __m512;
  static constexpr int depth = 2;
  static Sum zero() { return _mm512_setzero_ps(); }
  static __m512i right(const Right* from) { return _mm512_loadu_si512(from); }
  static Sum add(const Left* left, __m512i right, Sum sum) {
    const __m512i pair = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(left));
    return _mm512_dpbf16_ps(sum, (__m512bh)pair, (__m512bh)right);
  }
};
#endif

#if defined(XENC_INT8_DOT)
// Not __m512i, which may alias anything: the compiler would write each sum to memory in every step.
using Whole = int32_t __attribute__((vector_size(64)));

struct Int8Quads {
  using Left = uint8_t;
  using Right = int8_t;
  using Sum = Whole;
  static constexpr int depth = 4;
  static Sum zero() { return Whole{}; }
  static __m512i right(const Right* from) { return _mm512_loadu_si512(from); }
  static Sum add(const Left* left, __m512i right, Sum sum) {
    const __m512i four = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(left));
    return (Whole)_mm512_dpbusd_epi32((__m512i)sum, four, right);
  }
};
#endif

// sums[r][v] = left[r] . panel[:, v]
//
// left: kRows rows of steps x depth numbers. panel: kLanes x Vectors columns of it are read.
template <class Numbers, int Rows, int Vectors>
__attribute__((always_inline)) inline void multiply(
    const typename Numbers::Left* const (&left)[Rows], const typename Numbers::Right* panel, int64_t columns,
    int64_t steps, typename Numbers::Sum (&sums)[Rows][Vectors]) {
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sums[row][v] = Numbers::zero();
  for (int64_t step = 0; step < steps; ++step) {
    decltype(Numbers::right(panel)) right[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v)
      right[v] = Numbers::right(panel + (step * columns + v * kLanes) * Numbers::depth);
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v)
        sums[row][v] = Numbers::add(left[row] + step * Numbers::depth, right[v], sums[row][v]);
  }
}

template <class Numbers, int Vectors>
void multiply_panel(const typename Numbers::Left* const (&left)[kRows], const typename Numbers::Right* panel,
                    int64_t inner, float* out, int64_t stride) {
  if constexpr (Vectors <= kMostVectors) {
    typename Numbers::Sum sums[kRows][Vectors];
    multiply<Numbers, kRows, Vectors>(left, panel, kPanel, inner / Numbers::depth, sums);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) store(out + r * stride + v * kLanes, Vec(sums[r][v]));
  }
}

// out[r][column] = left[r] . panels, for the columns [from, to), both multiples of kLanes.
//
// panels: one after another, of rows of `inner` numbers. Rows of out are `stride` apart.
template <class Numbers>
void multiply_panels(const typename Numbers::Left* const (&left)[kRows], const typename Numbers::Right* panels,
                     int64_t inner, int64_t from, int64_t to, float* out, int64_t stride) {
  for (int64_t column = from; column < to;) {
    const int64_t panel = column / kPanel, into = column % kPanel;
    const int64_t vectors = std::min<int64_t>((kPanel - into) / kLanes, (to - column) / kLanes);
    const auto* first = panels + panel * kPanel * inner + into * Numbers::depth;
    float* to_columns = out + column;
    switch (vectors) {
      case 1: multiply_panel<Numbers, 1>(left, first, inner, to_columns, stride); break;
      case 2: multiply_panel<Numbers, 2>(left, first, inner, to_columns, stride); break;
      case 3: multiply_panel<Numbers, 3>(left, first, inner, to_columns, stride); break;
      default: multiply_panel<Numbers, kMostVectors>(left, first, inner, to_columns, stride);
    }
    column += vectors * kLanes;
  }
}

}  // namespace
