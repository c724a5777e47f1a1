#pragma once
// Stable sorting of indices by key on the CPU: least-significant-digit radix sort, which beats a
// comparison sort by an order of magnitude from a few hundred elements on.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace cv {

// An unsigned key that orders as the number does, descending. -0.0 equals 0.0; NaN ranks with -infinity,
// so that a NaN score never comes before a real one.
template <typename A>
inline auto descending_key(A value) {
  using U = std::conditional_t<sizeof(A) == 4, uint32_t, uint64_t>;
  constexpr U sign = U{1} << (sizeof(A) * 8 - 1);
  if (std::isnan(value)) value = -std::numeric_limits<A>::infinity();
  value += A(0);  // -0.0 becomes 0.0
  U bits;
  std::memcpy(&bits, &value, sizeof bits);
  const U ascending = (bits & sign) ? ~bits : bits | sign;
  return static_cast<U>(~ascending);
}

// order: any permutation or selection of indices into keys; on return sorted by keys[order[i]], ascending
// and stable. Keys above max_key must not occur (fewer digits are then looked at).
template <typename U>
void stable_sort_by_key(std::vector<int32_t>& order, const std::vector<U>& keys,
                        U max_key = std::numeric_limits<U>::max()) {
  const size_t n = order.size();
  if (n < 2) return;
  if (n < 256) {
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return keys[a] < keys[b]; });
    return;
  }
  constexpr int bits = 11;
  constexpr size_t buckets = size_t{1} << bits;
  struct Item {
    U key;
    int32_t index;
  };
  std::vector<Item> from(n), to(n);
  for (size_t i = 0; i < n; ++i) from[i] = {keys[order[i]], order[i]};
  std::vector<uint32_t> start(buckets);
  for (int shift = 0; shift < static_cast<int>(sizeof(U) * 8) && (max_key >> shift) != 0; shift += bits) {
    std::fill(start.begin(), start.end(), 0u);
    for (const Item& item : from) ++start[(item.key >> shift) & (buckets - 1)];
    if (start[(from[0].key >> shift) & (buckets - 1)] == n) continue;  // one digit for all: nothing to do
    uint32_t sum = 0;
    for (uint32_t& s : start) {
      const uint32_t count = s;
      s = sum;
      sum += count;
    }
    for (const Item& item : from) to[start[(item.key >> shift) & (buckets - 1)]++] = item;
    from.swap(to);
  }
  for (size_t i = 0; i < n; ++i) order[i] = from[i].index;
}

}  // namespace cv
