// torture: the crash laboratory for as long as it is told to run, or one seed of it again.
//
//   torture --seconds 600                    random seeds, until the first failure
//   torture --flavour failures --seed 7 --repeat 50
//   torture --record FILE --state POINT,SURVIVORS,SEED --out DIR
//
// Exit status: 0 nothing found, 1 a state is wrong, 2 it cannot be run.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <system_error>

#include "laboratory/laboratory.h"

namespace groupcommit::testing {
namespace {

struct Options {
  std::optional<Flavour> flavour;  // all of them, in turns
  uint64_t seed =
      static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  int64_t runs = std::numeric_limits<int64_t>::max();
  int64_t states = std::numeric_limits<int64_t>::max();
  int64_t seconds = std::numeric_limits<int64_t>::max();
  bool same_seed = false;
  bool stock = false;
  int states_per_run = 50;
  std::string record;
  Cut cut;
  std::string out;
  std::string dir = ".";
};

bool ParseFlavour(const char* name, Options* options) {
  for (int i = 0; i < kFlavours; i++) {
    if (std::strcmp(name, NameOf(static_cast<Flavour>(i))) == 0) {
      options->flavour = static_cast<Flavour>(i);
    }
  }
  return options->flavour.has_value();
}

bool ParseCut(const char* text, Cut* cut) {
  int survivors = -1;
  long long point = 0;
  unsigned long long seed = 0;
  if (std::sscanf(text, "%lld,%d,%llu", &point, &survivors, &seed) != 3) return false;
  *cut = {point, static_cast<Survivors>(survivors), seed};
  return survivors >= 0 && survivors < kSurvivorKinds;
}

template <typename Number>
bool ParseNumber(const char* text, Number* number) {
  const char* const end = text + std::strlen(text);
  const auto [stop, status] = std::from_chars(text, end, *number);
  return status == std::errc() && stop == end;
}

bool ParseOption(const std::string& name, const char* value, Options* options) {
  if (name == "--seconds") return ParseNumber(value, &options->seconds) && options->seconds > 0;
  if (name == "--seed") return ParseNumber(value, &options->seed);
  if (name == "--runs") return ParseNumber(value, &options->runs);
  if (name == "--repeat") {
    options->same_seed = true;
    return ParseNumber(value, &options->runs);
  }
  if (name == "--states") return ParseNumber(value, &options->states);
  if (name == "--states-per-run") return ParseNumber(value, &options->states_per_run);
  if (name == "--flavour") return ParseFlavour(value, options);
  if (name == "--state") return ParseCut(value, &options->cut);
  if (name == "--stock") {
    options->stock = std::strcmp(value, "0") != 0;
    return true;
  }
  std::string* const text = name == "--record" ? &options->record
                            : name == "--out"  ? &options->out
                            : name == "--dir"  ? &options->dir
                                               : nullptr;
  if (text != nullptr) *text = value;
  return text != nullptr;
}

bool Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    if (ParseOption(argv[i], argv[i + 1], options)) continue;
    std::fprintf(stderr, "torture: %s %s is not allowed\n", argv[i], argv[i + 1]);
    return false;
  }
  return argc % 2 == 1;
}

void PrintUsage() {
  std::fputs(
      "usage: torture [--seconds N] [--states N] [--runs N | --repeat N] [--seed N]\n"
      "               [--flavour NAME] [--states-per-run N] [--dir DIR] [--stock 1]\n"
      "       torture --record FILE --state POINT,SURVIVORS,SEED [--out DIR]\n"
      "N is a whole number, of seconds above 0; NAME one of",
      stderr);
  for (int i = 0; i < kFlavours; i++) {
    std::fprintf(stderr, " %s", NameOf(static_cast<Flavour>(i)));
  }
  std::fputs("\n", stderr);
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int Torture(const Options& options) {
  setenv("TMPDIR", options.dir.c_str(), 0);  // where the databases are
  Laboratory laboratory;
  laboratory.SetFailureDir(options.dir);
  laboratory.SetStock(options.stock);
  if (!options.record.empty()) {
    const bool good = laboratory.Again(options.record, options.cut, options.out);
    std::fputs(good ? "laboratory: nothing is wrong with it\n" : laboratory.explains().c_str(),
               stdout);
    return good ? 0 : 1;
  }
  const auto start = std::chrono::steady_clock::now();
  constexpr double kProgressSeconds = 5;
  double told = 0;
  uint64_t seed = options.seed;
  bool good = true;
  const auto tell = [&] {
    told = SecondsSince(start);
    std::printf(
        "%.0f s: %lld runs, %lld states, %.0f states/s, seed %llu\n", told,
        static_cast<long long>(laboratory.runs()), static_cast<long long>(laboratory.states()),
        static_cast<double>(laboratory.states()) / told, static_cast<unsigned long long>(seed));
    std::fflush(stdout);
  };
  while (good && laboratory.runs() < options.runs && laboratory.states() < options.states &&
         SecondsSince(start) < static_cast<double>(options.seconds)) {
    seed = options.seed + (options.same_seed ? 0 : static_cast<uint64_t>(laboratory.runs()));
    const Flavour flavour = options.flavour.value_or(static_cast<Flavour>(seed % kFlavours));
    good = laboratory.Run(flavour, seed, options.states_per_run);
    if (SecondsSince(start) - told >= kProgressSeconds) tell();
  }
  tell();
  if (!good) std::fputs(laboratory.explains().c_str(), stdout);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace groupcommit::testing

int main(int argc, char** argv) {
  groupcommit::testing::Options options;
  if (!groupcommit::testing::Parse(argc, argv, &options)) {
    groupcommit::testing::PrintUsage();
    return 2;
  }
  return groupcommit::testing::Torture(options);
}
