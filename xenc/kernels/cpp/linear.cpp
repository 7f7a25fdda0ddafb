// Linear layers: activation(left weight + bias), with the weight in panels that were laid out once.
//
// A task is a block of rows. It takes six rows against a panel of columns at a time, whose sums stay in
// registers until bias and activation have been applied. Each number is summed over the inputs in their order,
// so a row's result depends on that row alone, wherever it stands.
// Eight bits: as a row is read, its numbers become steps from its smallest to its largest, 0 to 255. A number is
// low + step x q, so a sum over the row is step x sum(q w) + low x sum(w), and the last sum is known of each column.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <c10/util/Exception.h>

#include "operators.h"
#include "product.h"
#include "tasks.h"

namespace {

using XENC_NAMESPACE::Linear;

constexpr int64_t kMostRows = 96;    // of a task: with K = 1536 they fill a quarter of a megabyte
constexpr int64_t kFewestRows = 12;
constexpr int64_t kTasksPerThread = 8;

// How the left operand is read: as it is stored, or from a copy that a task makes of its rows.
template <class Numbers, class T>
class Rows {
  using Number = typename Numbers::Left;

 public:
  Rows(const Linear& what, int64_t most) : what_(what) {
    if constexpr (!kDirect) copies_.resize(most * what.inputs);
    if constexpr (kEightBits) ranges_.resize(most);
  }

  void take(int64_t first, int64_t end) {
    first_ = first;
    if constexpr (!kDirect)
      for (int64_t row = first; row < end; ++row) copy(row);
  }
  const Number* operator[](int64_t row) const {
    if constexpr (kDirect)
      return reinterpret_cast<const Number*>(stored(row));
    else
      return copies_.data() + (row - first_) * what_.inputs;
  }
  struct Range {
    float low, step;
  };
  Range range(int64_t row) const { return ranges_[row - first_]; }

 private:
  static constexpr bool kEightBits = std::is_same_v<Number, uint8_t>;
  static constexpr bool kDirect = std::is_same_v<Number, T>;

  const T* stored(int64_t row) const { return static_cast<const T*>(what_.left) + row * what_.left_stride; }

  void copy(int64_t row) {
    const T* from = stored(row);
    Number* to = copies_.data() + (row - first_) * what_.inputs;
    if constexpr (kEightBits) {
      ranges_[row - first_] = to_eight_bits(from, to);
    } else {
      int64_t at = 0;
      for (; at + kLanes <= what_.inputs; at += kLanes) store(to + at, load(from + at));
      for (; at < what_.inputs; ++at) to[at] = static_cast<Number>(from[at]);
    }
  }

  Range to_eight_bits(const T* from, uint8_t* to) const {
    float low = from[0], high = from[0], amiss = 0.0f;  // amiss: sum of x - x; comparisons lose a NaN, sums do not
    int64_t at = 0;
    if (what_.inputs >= kLanes) {
      Vec lows = load(from), highs = lows, differences(0.0f);
      for (; at + kLanes <= what_.inputs; at += kLanes) {
        const Vec numbers = load(from + at);
        lows = at::vec::minimum(lows, numbers);
        highs = at::vec::maximum(highs, numbers);
        differences = differences + (numbers - numbers);
      }
      amiss = total(differences);
      low = -largest(lows.neg()), high = largest(highs);
    }
    for (; at < what_.inputs; ++at) {
      const float number = from[at];
      low = std::min(low, number), high = std::max(high, number), amiss += number - number;
    }
    const float step = high > low ? (high - low) / 255.0f : 1.0f, steps = 1.0f / step;
    at = 0;
#if defined(XENC_INT8_DOT)
    for (; at + kLanes <= what_.inputs; at += kLanes) {
      const __m512i whole = _mm512_cvtps_epi32((load(from + at) - Vec(low)) * Vec(steps));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), _mm512_cvtusepi32_epi8(whole));
    }
#endif
    for (; at < what_.inputs; ++at)
      to[at] = static_cast<uint8_t>(std::min(255.0f, std::nearbyint((static_cast<float>(from[at]) - low) * steps)));
    return {low + amiss, step};  // a row that is not finite stays none
  }

  const Linear& what_;
  int64_t first_ = 0;
  std::vector<Number> copies_;
  std::vector<Range> ranges_;
};

template <class Numbers, class T>
class Block {
  using Number = typename Numbers::Left;
  static constexpr bool kExact = std::is_same_v<T, float>;

 public:
  Block(const Linear& what, int64_t most) : what_(what), rows_(what, most) {}

  void run(int64_t first, int64_t end) {
    rows_.take(first, end);
    for (int64_t column = 0; column < what_.outputs; column += kPanel) {
      const int64_t vectors = std::min<int64_t>(kMostVectors, (what_.outputs - column + kLanes - 1) / kLanes);
      for (int64_t row = first; row < end; row += kRows) {
        const int64_t to = std::min(row + kRows, end);
        switch (vectors) {
          case 1: tile<1>(row, to, column); break;
          case 2: tile<2>(row, to, column); break;
          case 3: tile<3>(row, to, column); break;
          default: tile<kMostVectors>(row, to, column);
        }
      }
    }
  }

 private:
  T* out(int64_t row, int64_t column) const {
    return static_cast<T*>(what_.out) + row * what_.outputs + column;
  }

  template <int Vectors>
  void tile(int64_t first, int64_t end, int64_t column) {
    if constexpr (Vectors <= kMostVectors) {
      const Number* left[kRows];
      for (int r = 0; r < kRows; ++r) {
        const int64_t row = std::min(first + r, end - 1);  // rows beyond the last repeat it
        left[r] = rows_[row];
        for (size_t byte = 0; byte < Vectors * kLanes * sizeof(T); byte += 64)
          __builtin_prefetch(reinterpret_cast<const char*>(out(row, column)) + byte, 1);
      }
      const auto* panel = static_cast<const typename Numbers::Right*>(what_.weight) + column * what_.inputs;
      typename Numbers::Sum sums[kRows][Vectors];
      multiply<Numbers, kRows, Vectors>(left, panel, kPanel, what_.inputs / Numbers::depth, sums);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        const int64_t at = column + v * kLanes;
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r)
          if (first + r < end) finish(sums[r][v], first + r, at);
      }
    }
  }

  __attribute__((always_inline)) void finish(typename Numbers::Sum sum, int64_t row, int64_t column) const {
    Vec value;
#if defined(XENC_INT8_DOT)
    if constexpr (std::is_same_v<typename Numbers::Left, uint8_t>) {
      const auto [low, step] = rows_.range(row);
      const Vec whole = at::vec::fmadd(Vec(_mm512_cvtepi32_ps((__m512i)sum)), Vec(step), Vec(low) * load(what_.sums + column));
      value = whole * load(what_.scales + column);
    } else
#endif
      value = sum;
    value = value + load(what_.bias + column);
    const auto activation = static_cast<Activation>(what_.activation);
    if (activation != Activation::none) value = activated<kExact>(value, activation);
    const int64_t present = what_.outputs - column;
    if (present >= kLanes) {
      store(out(row, column), value);
    } else {
      T part[kLanes];
      store(part, value);
      std::memcpy(out(row, column), part, present * sizeof(T));
    }
  }

  const Linear& what_;
  Rows<Numbers, T> rows_;
};

template <class Numbers, class T>
void multiply_in(const Linear& what) {
  const int64_t wanted = what.rows / (kTasksPerThread * at::get_num_threads());
  const int64_t most = std::clamp(wanted / kRows * kRows, kFewestRows, kMostRows);
  share((what.rows + most - 1) / most, [&](const auto& take) {
    Block<Numbers, T> block(what, most);
    for (int64_t task = take(); task >= 0; task = take())
      block.run(task * most, std::min(what.rows, (task + 1) * most));
  });
}

template <class T>
void multiply_in_eight_bits(const Linear& what) {
#if defined(XENC_INT8_DOT)
  multiply_in<Int8Quads, T>(what);
#else
  TORCH_CHECK(false, "no int8 products on this processor");
#endif
}

}  // namespace

void XENC_NAMESPACE::multiply_by_weight(const Linear& what, Type type, bool eight_bits) {
  switch (type) {
    case Type::float32:
      return eight_bits ? multiply_in_eight_bits<float>(what) : multiply_in<Widened<float>, float>(what);
    case Type::float16:
      return eight_bits ? multiply_in_eight_bits<Half>(what) : multiply_in<Widened<Half>, Half>(what);
    case Type::bfloat16:
#if defined(XENC_BF16_DOT)
      return eight_bits ? multiply_in_eight_bits<BFloat16>(what) : multiply_in<BFloat16Pairs, BFloat16>(what);
#else
      return eight_bits ? multiply_in_eight_bits<BFloat16>(what) : multiply_in<Widened<BFloat16>, BFloat16>(what);
#endif
  }
}

int64_t XENC_NAMESPACE::panel_columns() { return kPanel; }

int64_t XENC_NAMESPACE::bfloat16_depth() {
#if defined(XENC_BF16_DOT)
  return 2;
#else
  return 1;
#endif
}

bool XENC_NAMESPACE::has_int8() {
#if defined(XENC_INT8_DOT)
  return true;
#else
  return false;
#endif
}
