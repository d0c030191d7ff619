// What the process has used up so far: processor time and context switches.
#ifndef GROUPCOMMIT_BENCH_RESOURCE_USAGE_H_
#define GROUPCOMMIT_BENCH_RESOURCE_USAGE_H_

#include <sys/resource.h>

namespace groupcommit::bench {

struct ResourceUsage {
  double cpu_us = 0;            // Of all threads, in the kernel and outside.
  double context_switches = 0;  // Voluntary and not.

  static ResourceUsage Now() {
    struct rusage usage {};
    getrusage(RUSAGE_SELF, &usage);
    const auto micros = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
    };
    return {micros(usage.ru_utime) + micros(usage.ru_stime),
            static_cast<double>(usage.ru_nvcsw) + static_cast<double>(usage.ru_nivcsw)};
  }

  ResourceUsage Since(const ResourceUsage& start) const {
    return {cpu_us - start.cpu_us, context_switches - start.context_switches};
  }
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_RESOURCE_USAGE_H_
