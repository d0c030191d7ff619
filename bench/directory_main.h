// The main() of a benchmark that works in a directory of its own.
#ifndef GROUPCOMMIT_BENCH_DIRECTORY_MAIN_H_
#define GROUPCOMMIT_BENCH_DIRECTORY_MAIN_H_

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>

#include "disk.h"

namespace groupcommit::bench {

// Runs the benchmarks that are registered. The arguments are Google Benchmark's, and --dir=DIR,
// below which *directory is made, for as long as they run. Returns the exit status of the program
// `name`.
inline int RunInDirectory(int argc, char** argv, const std::string& name,
                          std::filesystem::path* directory) {
  try {
    std::string parent = ".";
    int count = 0;
    for (int i = 0; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument.starts_with("--dir=")) {
        parent = argument.substr(6);
      } else {
        argv[count++] = argv[i];
      }
    }
    benchmark::Initialize(&count, argv);
    if (benchmark::ReportUnrecognizedArguments(count, argv)) return 2;
    const TemporaryDirectory files(parent, name + "-");
    *directory = files.path();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return EXIT_SUCCESS;
  } catch (const std::exception& e) {
    std::cerr << name << ": " << e.what() << "\n";
    return EXIT_FAILURE;
  }
}

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_DIRECTORY_MAIN_H_
