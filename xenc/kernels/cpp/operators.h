// What the library's sources share: the operators' plain arguments. No tensors, so that these compile in seconds.
#pragma once

#include <cstdint>

namespace XENC_NAMESPACE {

constexpr int64_t kMostLanes = 16;  // of a vector, on any processor

enum class Type : int64_t { float32, bfloat16, float16 };

// What is added to the score of a query and a key, by the bucket of their distance. Null: nothing.
struct Bias {
  const int32_t* buckets;      // of key - query = 0, others around it; kMostLanes more behind the farthest
  int64_t count;               // of buckets
  const float* of_bucket;      // [heads, count], added to the scaled score
  const void* bucket_keys;     // [count, heads, size], multiplied by the query before scaling
  const void* bucket_queries; // [count, heads, size], multiplied by the key before scaling
  int64_t keys_stride, queries_stride;
};

// Documents laid end to end, each attending to itself. T tokens; rows of query, key, value and out are so many
// numbers apart, and heads stand next to each other within a row.
struct Attention {
  const void *query, *key, *value;
  void* out;
  int64_t query_stride, key_stride, value_stride, out_stride;
  const int32_t* cu_seqlens;  // documents + 1
  int64_t documents;
  int64_t heads, key_heads, size;
  float scale;
  bool causal;
  int64_t window;  // tokens to either side; negative for all
  bool pooled;     // each document has one query, in the row of its number, which sees the whole document
  float cap;       // scaled scores become cap tanh(score / cap); 0 for none
  Bias bias;
};

void attend(const Attention& arguments, Type type);

// out[row] = activation(left[row] . weight + bias), for rows of `inputs` numbers.
struct Linear {
  const void* left;
  const void* weight;  // panels; see product.h
  const float* bias;   // of whole panels
  void* out;
  int64_t left_stride, rows, inputs, outputs;
  int64_t activation;
  // eight bits: of each column what one step of its weights is worth, and their sum in steps
  const float* scales;
  const float* sums;
};

void multiply_by_weight(const Linear& arguments, Type type, bool eight_bits);

int64_t panel_columns();
int64_t bfloat16_depth();
bool has_int8();

}  // namespace XENC_NAMESPACE
