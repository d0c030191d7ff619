// A moving average, of times in nanoseconds.
#ifndef GROUPCOMMIT_MOVING_AVERAGE_H_
#define GROUPCOMMIT_MOVING_AVERAGE_H_

#include <algorithm>
#include <cstdint>

namespace groupcommit {

// The first sample counts in full, each later one for an eighth. 0: there is none yet.
inline void Smooth(int64_t* average, int64_t sample) {
  constexpr int64_t kWeight = 8;
  *average = *average == 0 ? sample : *average + (sample - *average) / kWeight;
}

// The same, but a sample counts for at most `times` the average: a single one, however large, does
// not spoil it.
inline void SmoothWithin(int64_t times, int64_t* average, int64_t sample) {
  Smooth(average, *average == 0 ? sample : std::min(sample, times * *average));
}

}  // namespace groupcommit

#endif  // GROUPCOMMIT_MOVING_AVERAGE_H_
