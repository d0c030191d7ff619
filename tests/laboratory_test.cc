// The crash laboratory, for a moment of each flavour; "make torture" goes on for longer.
#include "laboratory/laboratory.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "support/sanitizers.h"
#include "support/scale.h"

namespace groupcommit::testing {
namespace {

// Of each flavour.
#ifdef GROUPCOMMIT_TEST_THREAD_SANITIZER
// The runs are what matters, and copying a disk takes long.
constexpr int kStates = 320;
constexpr int kStatesPerRun = 8;
#else
constexpr int kStates = 2800;
constexpr int kStatesPerRun = 60;
#endif

Laboratory& TheLaboratory() {
  static Laboratory* const laboratory = new Laboratory;  // its VFSes stay registered
  return *laboratory;
}

class LaboratoryTest : public ::testing::TestWithParam<int> {};

TEST_P(LaboratoryTest, EveryStateIsOneThatMayBe) {
  Laboratory& laboratory = TheLaboratory();
  const int64_t states = laboratory.states();
  const int64_t runs = laboratory.runs();
  const int64_t events = laboratory.events();
  for (uint64_t seed = 1; laboratory.states() - states < Scaled(kStates); seed++) {
    ASSERT_TRUE(laboratory.Run(static_cast<Flavour>(GetParam()), seed, kStatesPerRun))
        << laboratory.explains();
  }
  RecordProperty("states", static_cast<int>(laboratory.states() - states));
  std::printf("%lld states after power cuts, of %lld runs with %lld events\n",
              static_cast<long long>(laboratory.states() - states),
              static_cast<long long>(laboratory.runs() - runs),
              static_cast<long long>(laboratory.events() - events));
}

std::string FlavourName(const ::testing::TestParamInfo<int>& flavour) {
  return NameOf(static_cast<Flavour>(flavour.param));
}

INSTANTIATE_TEST_SUITE_P(Flavours, LaboratoryTest, ::testing::Range(0, kFlavours), FlavourName);

}  // namespace
}  // namespace groupcommit::testing
