// Keys and values of one head, copied from the rows of a batch into the order in which products read them.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "product.h"

namespace {

inline int64_t rounded_up(int64_t number, int64_t multiple) {
  return (number + multiple - 1) / multiple * multiple;
}

// How numbers of a type are multiplied in attention.
template <class T>
struct NumbersOf {
  using type = Widened<float>;
};
#if defined(XENC_BF16_DOT)
template <>
struct NumbersOf<BFloat16> {
  using type = BFloat16Pairs;
};
#endif

// Packs rows of T, `size` numbers each.
template <class T>
class Packing {
 public:
  using Numbers = typename NumbersOf<T>::type;
  using Number = typename Numbers::Left;
  static constexpr bool kWidens = !std::is_same_v<T, Number>;
  static constexpr int kDepth = Numbers::depth;

  explicit Packing(int64_t size)
      : size_(size),
        inner_(rounded_up(size, kDepth)),
        columns_(rounded_up(size, kLanes)),
        wide_(kPanel * inner_) {}

  int64_t inner() const { return inner_; }      // numbers of a row of queries or keys
  int64_t columns() const { return columns_; }  // numbers of a row of values
  // Whether products can read the rows as they stand.
  bool direct() const { return !kWidens && inner_ == size_; }

  // [keys][size] -> panels [size / depth][kPanel][depth]; the last vector's keys beyond `count` are 0.
  void keys(const T* rows, int64_t stride, int64_t count, Number* panels) {
    const int64_t steps = inner_ / kDepth;
    for (int64_t first = 0; first < count; first += kPanel) {
      const int64_t present = std::min<int64_t>(kPanel, count - first);
      const T* from = rows + first * stride;
      float* panel = reinterpret_cast<float*>(panels) + first * steps;
      if (direct() && stride % kDepth == 0) {
        transpose(reinterpret_cast<const float*>(from), stride / kDepth, panel, present, steps);
        continue;
      }
      for (int64_t key = 0; key < present; ++key) copy(from + key * stride, wide_.data() + key * inner_, inner_);
      transpose(reinterpret_cast<const float*>(wide_.data()), steps, panel, present, steps);
    }
  }

  // [keys][size] -> [keys / depth][columns][depth]; where keys are an odd number, one more of 0.
  void values(const T* rows, int64_t stride, int64_t count, Number* to) const {
    for (int64_t key = 0; key < count; key += kDepth) {
      const T* first = rows + key * stride;
      if constexpr (kDepth == 1)
        copy(first, to + key * columns_, columns_);
      else
        interleave(first, key + 1 < count ? first + stride : nullptr, to + key * columns_);
    }
  }

  // One row, widened where products need it so, and 0 up to `padded`.
  void copy(const T* from, Number* to, int64_t padded) const {
    int64_t at = 0;
    if constexpr (kWidens)
      for (; at + kLanes <= size_; at += kLanes) store(to + at, load(from + at));
    for (; at < size_; ++at) to[at] = static_cast<Number>(from[at]);
    for (; at < padded; ++at) to[at] = Number(0);
  }

 private:
  // Pairs of bfloat16 are moved as one float32 is.
  static void transpose(const float* source, int64_t stride, float* panel, int64_t keys, int64_t stretch) {
    for (int64_t key = 0; key < keys; key += kLanes)
      for (int64_t step = 0; step < stretch; step += kLanes) {
        const int rows = std::min<int64_t>(kLanes, keys - key), wide = std::min<int64_t>(kLanes, stretch - step);
        const float* from = source + key * stride + step;
        float* to = panel + step * kPanel + key;
        if (rows == kLanes && wide == kLanes)
          at::vec::transpose_mxn<float, kLanes, kLanes>(from, stride, to, kPanel);
        else
          transpose_part(from, stride, to, rows, wide);
      }
  }

  static void transpose_part(const float* from, int64_t stride, float* to, int rows, int wide) {
    float square[kLanes * kLanes] = {}, turned[kLanes * kLanes];
    for (int r = 0; r < rows; ++r) std::memcpy(square + r * kLanes, from + r * stride, wide * sizeof(float));
    at::vec::transpose_mxn<float, kLanes, kLanes>(square, kLanes, turned, kLanes);
    for (int c = 0; c < wide; ++c) store(to + c * kPanel, load(turned + c * kLanes));
  }

  void interleave(const T* first, const T* second, Number* to) const {
    int64_t at = 0;
#if defined(XENC_BF16_DOT)
    if constexpr (kDepth == 2)
      for (; at + kLanes <= size_; at += kLanes) {
        const auto half = [&](const T* from) {
          return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at)));
        };
        __m512i pairs = half(first);
        if (second != nullptr) pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(half(second), 16));
        _mm512_storeu_si512(to + 2 * at, pairs);
      }
#endif
    for (; at < columns_; ++at) {
      to[2 * at] = at < size_ ? static_cast<Number>(first[at]) : Number(0);
      to[2 * at + 1] = second != nullptr && at < size_ ? static_cast<Number>(second[at]) : Number(0);
    }
  }

  const int64_t size_, inner_, columns_;
  std::vector<Number> wide_;
};

}  // namespace
