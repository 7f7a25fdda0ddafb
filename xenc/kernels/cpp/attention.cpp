// Packed attention: softmax(scale Q K^T) V within each document, scores and softmax in float32.
//
// A task is a block of queries of one head of one document. It packs the keys and values that they see into
// panels, and takes twelve queries at a time: their scores with all those keys stand in the cache while the
// softmax is taken. Documents of more than kKeys tokens are taken in blocks of keys, with the running maximum
// and sum of the online softmax (Milakov and Gimelshein, arXiv:1805.02867).
// What a document gets depends on nothing but itself: blocks begin where it begins.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "operators.h"
#include "product.h"
#include "tasks.h"

namespace {

using XENC_NAMESPACE::Attention;

constexpr int64_t kQueries = 256;  // of a task
constexpr int64_t kKeys = 1024;    // whose scores are held at once
// of their rows: no power of two, whose rows would share sets of the cache
constexpr int64_t kStride = kKeys + 64 / sizeof(float);
constexpr int kTile = 2 * kRows;   // queries taken at a time
constexpr int kChains = 4;           // sums side by side, so that none waits for the one before
constexpr float kLog2E = 1.44269504088896f;
constexpr float kLeast = -std::numeric_limits<float>::infinity();

int64_t rounded_up(int64_t number, int64_t multiple) { return (number + multiple - 1) / multiple * multiple; }

struct Range {
  int64_t from, to;
  bool empty() const { return from >= to; }
};

Range meet(Range a, Range b) { return {std::max(a.from, b.from), std::min(a.to, b.to)}; }

// Which keys of a document of `length` tokens the queries [from, to) see between them.
Range seen_by(const Attention& how, int64_t from, int64_t to, int64_t length) {
  const bool all = how.window < 0;
  const int64_t first = all ? 0 : std::max<int64_t>(0, from - how.window);
  const int64_t end = how.causal ? to : (all ? length : std::min(length, to + how.window));
  return {first, end};
}

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

template <class T>
class Task {
  using Numbers = typename NumbersOf<T>::type;
  using Number = typename Numbers::Left;
  static constexpr bool kWidens = !std::is_same_v<T, Number>;
  static constexpr bool kExact = std::is_same_v<T, float>;
  static constexpr int kDepth = Numbers::depth;

 public:
  explicit Task(const Attention& how)
      : how_(how),
        inner_(rounded_up(how.size, kDepth)),
        columns_(rounded_up(how.size, kLanes)),
        keys_(kKeys * inner_),
        values_(kKeys * columns_),
        wide_(kKeys * inner_),
        queries_(kTile * inner_),
        scores_(kTile * kStride),
        weights_(std::is_same_v<Number, float> ? 0 : kTile * kStride),
        sums_(kQueries * columns_),
        maxima_(kQueries),
        totals_(kQueries) {}

  // The queries [from, to) of one head of the document that begins at token `start`.
  void run(int64_t start, int64_t length, int64_t head, int64_t from, int64_t to) {
    start_ = start, head_ = head, length_ = length;
    const Range seen = seen_by(how_, from, to, length);
    const int64_t blocks = (seen.to - seen.from + kKeys - 1) / kKeys;
    fetch(how_.query, how_.query_stride, head_, {from, to});
    for (int64_t block = 0; block < blocks; ++block) {
      block_ = {seen.from + block * kKeys, std::min(seen.to, seen.from + (block + 1) * kKeys)};
      fetch(how_.value, how_.value_stride, key_head(), block_);
      pack_keys();
      pack_values();
      for (int64_t query = from; query < to; query += kTile) {
        const int64_t end = std::min(query + kTile, to);
        attend_tile(query, end, query - from, block == 0);
        if (block == blocks - 1)
          for (int64_t row = query; row < end; ++row) write(row, row - from);
      }
    }
  }

 private:
  const T* row(const void* base, int64_t stride, int64_t token, int64_t head) const {
    return static_cast<const T*>(base) + (start_ + token) * stride + head * how_.size;
  }
  // Rows of one head lie far apart, where the processor does not look ahead by itself.
  void fetch(const void* base, int64_t stride, int64_t head, Range tokens) const {
    for (int64_t token = tokens.from; token < tokens.to; ++token)
      for (int64_t byte = 0; byte < how_.size * int64_t(sizeof(T)); byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(row(base, stride, token, head)) + byte);
  }
  int64_t key_head() const { return head_ / (how_.heads / how_.key_heads); }
  int64_t padded_keys() const { return rounded_up(block_.to - block_.from, kLanes); }

  // [keys][size] -> panels [size / depth][kPanel][depth]; the last vector's keys beyond the block are 0.
  void pack_keys() {
    const int64_t count = block_.to - block_.from, stretch = inner_ / kDepth;
    for (int64_t first = 0; first < count; first += kPanel) {
      float* panel = reinterpret_cast<float*>(keys_.data()) + first * stretch;
      const int64_t present = std::min<int64_t>(kPanel, count - first);
      const float* source;
      int64_t stride;
      const bool direct = !kWidens && inner_ == how_.size;
      if (direct) {
        source = reinterpret_cast<const float*>(row(how_.key, how_.key_stride, block_.from + first, key_head()));
        stride = how_.key_stride * sizeof(T) / sizeof(float);
      }
      if (!direct || how_.key_stride % kDepth != 0) {
        for (int64_t key = 0; key < present; ++key)
          copy_row(row(how_.key, how_.key_stride, block_.from + first + key, key_head()),
                   wide_.data() + key * inner_, inner_);
        source = reinterpret_cast<const float*>(wide_.data());
        stride = stretch;
      }
      transpose(source, stride, panel, present, stretch);
    }
  }

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

  void copy_row(const T* from, Number* to, int64_t padded) const {
    int64_t at = 0;
    if constexpr (kWidens)
      for (; at + kLanes <= how_.size; at += kLanes) store(to + at, load(from + at));
    for (; at < how_.size; ++at) to[at] = static_cast<Number>(from[at]);
    for (; at < padded; ++at) to[at] = Number(0);
  }

  // [keys][size] -> [keys / depth][columns][depth]; where keys are an odd number, one more of 0.
  void pack_values() {
    const int64_t count = block_.to - block_.from;
    for (int64_t key = 0; key < count; key += kDepth) {
      Number* to = values_.data() + key * columns_;
      const T* first = row(how_.value, how_.value_stride, block_.from + key, key_head());
      if constexpr (kDepth == 1) {
        copy_row(first, to, columns_);
      } else {
        const T* second = key + 1 < count ? first + how_.value_stride : nullptr;
        interleave(first, second, to);
      }
    }
  }

  void interleave(const T* first, const T* second, Number* to) const {
    int64_t at = 0;
#if defined(XENC_BF16_DOT)
    if constexpr (kDepth == 2)
      for (; at + kLanes <= how_.size; at += kLanes) {
        const auto half = [&](const T* from) {
          return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + at)));
        };
        __m512i pairs = half(first);
        if (second != nullptr) pairs = _mm512_or_si512(pairs, _mm512_slli_epi32(half(second), 16));
        _mm512_storeu_si512(to + 2 * at, pairs);
      }
#endif
    for (; at < columns_; ++at) {
      to[2 * at] = at < how_.size ? static_cast<Number>(first[at]) : Number(0);
      to[2 * at + 1] = second != nullptr && at < how_.size ? static_cast<Number>(second[at]) : Number(0);
    }
  }

  void attend_tile(int64_t from, int64_t to, int64_t slot, bool first_block) {
    const Range seen = meet(seen_by(how_, from, to, length_), block_);
    const Range here{(seen.from - block_.from) / kLanes * kLanes, rounded_up(seen.to - block_.from, kLanes)};
    if (seen.empty() && !first_block) return;
    if (!seen.empty()) {
      for (int64_t query = from; query < to; query += kRows) score(query, to, query - from, here);
      soften(from, to, slot, here, first_block);
    } else {
      for (int64_t query = from; query < to; ++query) begin(slot + query - from);
    }
    if (!seen.empty()) sum_values(to - from, slot, here, first_block);
  }

  void begin(int64_t slot) {
    maxima_[slot] = kLeast;
    totals_[slot] = 0.0f;
    std::fill_n(sums_.data() + slot * columns_, columns_, 0.0f);
  }

  // scores_[row .. row + 6] over the vectors of `here`.
  void score(int64_t query, int64_t end, int64_t row_in_tile, Range here) {
    const Number* left[kRows];
    const bool direct = !kWidens && inner_ == how_.size;
    for (int r = 0; r < kRows; ++r) {
      const int64_t token = std::min(query + r, end - 1);  // rows beyond the last repeat it
      const T* from = row(how_.query, how_.query_stride, token, head_);
      if (direct) {
        left[r] = reinterpret_cast<const Number*>(from);
      } else {
        Number* copy = queries_.data() + (row_in_tile + r) * inner_;
        copy_row(from, copy, inner_);
        left[r] = copy;
      }
    }
    float* scores = scores_.data() + row_in_tile * kStride;
    for (int64_t key = here.from; key < here.to;) {
      const int64_t panel = key / kPanel, into = key % kPanel;
      const int64_t vectors = std::min<int64_t>((kPanel - into) / kLanes, (here.to - key) / kLanes);
      const Number* keys = keys_.data() + panel * kPanel * inner_ + into * kDepth;
      switch (vectors) {
        case 1: score_panel<1>(left, keys, scores + key); break;
        case 2: score_panel<2>(left, keys, scores + key); break;
        case 3: score_panel<3>(left, keys, scores + key); break;
        default: score_panel<kMostVectors>(left, keys, scores + key);
      }
      key += vectors * kLanes;
    }
  }

  template <int Vectors>
  void score_panel(const Number* const (&left)[kRows], const Number* keys, float* scores) const {
    if constexpr (Vectors <= kMostVectors) {
      Vec sums[kRows][Vectors];
      products<kRows, Vectors>(left, keys, kPanel, inner_ / kDepth, sums);
#pragma GCC unroll 6
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) store(scores + r * kStride + v * kLanes, sums[r][v]);
    }
  }

  template <int Rows, int Vectors>
  __attribute__((always_inline)) static void products(const Number* const (&left)[Rows], const Number* panel,
                                                      int64_t columns, int64_t steps, Vec (&sums)[Rows][Vectors]) {
    typename Numbers::Sum raw[Rows][Vectors];
    multiply<Numbers, Rows, Vectors>(left, panel, columns, steps, raw);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[r][v] = raw[r][v];
  }

  // Scores of a tile's queries -> weights, not yet divided by their total. Row by row in three passes, so that
  // no row waits for what another's numbers are reduced to.
  void soften(int64_t from, int64_t to, int64_t slot, Range here, bool first_block) {
    Range seen[kTile];
    float maximum[kTile];
    Vec total_of[kTile];
    const int64_t count = to - from;
    for (int64_t row = 0; row < count; ++row) {
      seen[row] = mask(from + row, row);
      const float before = first_block ? kLeast : maxima_[slot + row];
      const float top = largest(largest_of(scores_.data() + row * kStride, seen[row])) * how_.scale * kLog2E;
      // no lower where a row has seen but scores of -inf, which then weigh nothing
      maximum[row] = std::max({before, top, std::numeric_limits<float>::lowest()});
    }
    for (int64_t row = 0; row < count; ++row) total_of[row] = weigh(row, seen[row], here, maximum[row]);
    for (int64_t row = 0; row < count; ++row)
      keep(slot + row, maximum[row], total(total_of[row]), first_block);
  }

  // The vectors that hold the keys a query sees in this block; what else they hold does not count.
  Range mask(int64_t query, int64_t row) {
    const Range seen = meet(seen_by(how_, query, query + 1, length_), block_);
    if (seen.empty()) return {0, 0};
    float* scores = scores_.data() + row * kStride;
    const int64_t first = seen.from - block_.from, end = seen.to - block_.from;
    const Range whole{first / kLanes * kLanes, rounded_up(end, kLanes)};
    std::fill(scores + whole.from, scores + first, kLeast);
    std::fill(scores + end, scores + whole.to, kLeast);
    return whole;
  }

  Vec weigh(int64_t row, Range seen, Range here, float maximum) {
    const float* scores = scores_.data() + row * kStride;
    const Vec scale(how_.scale * kLog2E), top(maximum);
    Vec sums[kChains] = {Vec(0.0f), Vec(0.0f), Vec(0.0f), Vec(0.0f)};
    const auto weigh_at = [&](int64_t at, Vec& sum) __attribute__((always_inline)) {
      const Vec weight = exp2_of<kExact>(at::vec::fmsub(load(scores + at), scale, top));
      sum = sum + weight;
      put_weights(row, at, weight);
    };
    if (seen.empty()) seen = {here.from, here.from};
    for (int64_t at = here.from; at < seen.from; at += kLanes) put_weights(row, at, Vec(0.0f));
    int64_t at = seen.from;
    for (; at + kChains * kLanes <= seen.to; at += kChains * kLanes)
      for (int chain = 0; chain < kChains; ++chain) weigh_at(at + chain * kLanes, sums[chain]);
    for (; at < seen.to; at += kLanes) weigh_at(at, sums[0]);
    for (; at < here.to; at += kLanes) put_weights(row, at, Vec(0.0f));
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  static Vec largest_of(const float* scores, Range seen) {
    const Vec least(kLeast);
    Vec tops[kChains] = {least, least, least, least};
    int64_t at = seen.from;
    for (; at + kChains * kLanes <= seen.to; at += kChains * kLanes)
      for (int chain = 0; chain < kChains; ++chain)
        tops[chain] = larger(tops[chain], load(scores + at + chain * kLanes));
    for (; at < seen.to; at += kLanes) tops[0] = larger(tops[0], load(scores + at));
    return larger(larger(tops[0], tops[1]), larger(tops[2], tops[3]));
  }

  void put_weights(int64_t row_in_tile, int64_t at, Vec weight) {
    if constexpr (std::is_same_v<Number, float>)
      store(scores_.data() + row_in_tile * kStride + at, weight);
    else
      store(weights_.data() + row_in_tile * kStride + at, weight);
  }

  void keep(int64_t slot, float maximum, float sum, bool first_block) {
    const float before = maxima_[slot];
    maxima_[slot] = maximum;
    if (first_block) {
      totals_[slot] = sum;
      return;
    }
    const float shrunk = before == maximum ? 1.0f : std::exp2(before - maximum);
    totals_[slot] = totals_[slot] * shrunk + sum;
    float* sums = sums_.data() + slot * columns_;
    for (int64_t at = 0; at < columns_; at += kLanes) store(sums + at, load(sums + at) * Vec(shrunk));
  }

  // sums_[slot ...] (+)= weights . values
  void sum_values(int64_t queries, int64_t slot, Range here, bool first_block) {
    int64_t column = 0;
    while (column < columns_) {
      const int64_t vectors = std::min<int64_t>(kMostVectors, (columns_ - column) / kLanes);
      switch (vectors) {
        case 1: sum_columns<1>(queries, slot, here, column, first_block); break;
        case 2: sum_columns<2>(queries, slot, here, column, first_block); break;
        case 3: sum_columns<3>(queries, slot, here, column, first_block); break;
        default: sum_columns<kMostVectors>(queries, slot, here, column, first_block);
      }
      column += vectors * kLanes;
    }
  }

  template <int Vectors>
  void sum_columns(int64_t queries, int64_t slot, Range here, int64_t column, bool first_block) {
    if constexpr (Vectors <= kMostVectors) {
      constexpr int Rows = kMostVectors >= 2 * Vectors ? kTile : kRows;
      const Number* weights = [&] {
        if constexpr (std::is_same_v<Number, float>)
          return scores_.data();
        else
          return weights_.data();
      }();
      // a multiple of the depth; beyond the block's end weights are 0, and so are values
      const int64_t end = std::min(here.to, rounded_up(block_.to - block_.from, kDepth));
      for (int64_t first = 0; first < queries; first += Rows) {
        const Number* left[Rows];
        for (int r = 0; r < Rows; ++r) left[r] = weights + std::min(first + r, queries - 1) * kStride + here.from;
        Vec sums[Rows][Vectors];
        products<Rows, Vectors>(left, values_.data() + here.from * columns_ + column * kDepth, columns_,
                                (end - here.from) / kDepth, sums);
        for (int r = 0; r < Rows && first + r < queries; ++r) {
          float* kept = sums_.data() + (slot + first + r) * columns_ + column;
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v)
            store(kept + v * kLanes, first_block ? sums[r][v] : load(kept + v * kLanes) + sums[r][v]);
        }
      }
    }
  }

  void write(int64_t query, int64_t slot) {
    T* out = static_cast<T*>(how_.out) + (start_ + query) * how_.out_stride + head_ * how_.size;
    const float* sums = sums_.data() + slot * columns_;
    const Vec inverse(1.0f / totals_[slot]);
    int64_t at = 0;
    for (; at + kLanes <= how_.size; at += kLanes) store(out + at, load(sums + at) * inverse);
    for (; at < how_.size; ++at) out[at] = static_cast<T>(sums[at] / totals_[slot]);
  }

  const Attention& how_;
  const int64_t inner_, columns_;
  int64_t start_ = 0, head_ = 0, length_ = 0;
  Range block_{0, 0};
  std::vector<Number> keys_, values_, wide_, queries_;
  std::vector<float> scores_;
  std::vector<Number> weights_;
  std::vector<float> sums_, maxima_, totals_;
};

struct Block {
  int64_t start, length, head, from, to;
};

std::vector<Block> blocks_of(const Attention& how) {
  std::vector<Block> blocks;
  for (int64_t document = 0; document < how.documents; ++document) {
    const int64_t start = how.starts[document], length = how.starts[document + 1] - start;
    for (int64_t from = 0; from < length; from += kQueries)
      for (int64_t head = 0; head < how.heads; ++head)
        blocks.push_back({start, length, head, from, std::min(length, from + kQueries)});
  }
  return blocks;
}

template <class T>
void attend_in(const Attention& how) {
  const std::vector<Block> blocks = blocks_of(how);
  share(blocks.size(), [&](const auto& take) {
    Task<T> task(how);
    for (int64_t number = take(); number >= 0; number = take()) {
      const Block& block = blocks[number];
      task.run(block.start, block.length, block.head, block.from, block.to);
    }
  });
}

}  // namespace

void XENC_NAMESPACE::attend(const Attention& how, Type type) {
  switch (type) {
    case Type::float32: return attend_in<float>(how);
    case Type::bfloat16: return attend_in<BFloat16>(how);
    case Type::float16: return attend_in<Half>(how);
  }
}
