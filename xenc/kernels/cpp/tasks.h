// Work handed out to threads as they become free, so that neither a long task nor a busy neighbour idles a core.
#pragma once

#include <atomic>
#include <cstdint>

#include <ATen/Parallel.h>

namespace {

// Calls work(take) once on each thread; take() answers with the next task's number, or -1.
template <class Work>
void share(int64_t tasks, const Work& work) {
  if (tasks <= 0) return;
  std::atomic<int64_t> next{0};
  const auto take = [&] {
    const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
    return task < tasks ? task : -1;
  };
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), tasks), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) work(take);
  });
}

}  // namespace
