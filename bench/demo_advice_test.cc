// What --advise says of given figures, word by word.
#include "demo_advice.h"

#include <gtest/gtest.h>

namespace groupcommit::bench {
namespace {

using Run = AdviceFigures::Run;

constexpr SyncLatency kDisk = {200, 1100, 270, 1500};

AdviceFigures Figures(std::vector<Run> runs, const SyncLatency& disk = kDisk) {
  return {false, disk, "auto", std::move(runs)};
}

std::string RecommendationOf(const AdviceFigures& figures) {
  const std::string text = Advise(figures);
  const size_t at = text.find("\nRecommendation: ");
  EXPECT_NE(at, std::string::npos) << text;
  return at == std::string::npos ? "" : text.substr(at + 1);
}

constexpr char kUseIt[] =
    "Recommendation: open the database with ?vfs=groupcommit and leave the policy at auto (the"
    " default),\n"
    "if 8 connections or more commit at the same time in one process. For one writer, or where a\n"
    "power cut may take the last commits (synchronous=NORMAL), stay with stock SQLite.\n";

TEST(AdviceTest, AnOrdinaryDisk) {
  EXPECT_EQ(
      Advise(Figures({{1, 5'550, 5'500, 5'000, 6'000},
                      {8, 5'610, 16'370, 1'200'000, 4'000},
                      {32, 5'000, 20'100, 40'000, 9'000}})),
      std::string("Your disk syncs in 0.2 ms (99%: 1.1 ms).\n"
                  "So one connection cannot commit faster than about 5,000/s, whatever the"
                  " software.\n"
                  "With 1 connection nothing is gained: 5,500/s, stock SQLite 5,600/s.\n"
                  "With 8 connections expect about 2.9 times as many commits: 16,000/s, stock"
                  " SQLite 5,600/s.\n"
                  "  The longest COMMIT took 4.0 ms, with stock SQLite 1.20 s or more.\n"
                  "With 32 connections expect about 4.0 times as many commits: 20,000/s, stock"
                  " SQLite 5,000/s.\n"
                  "\n") +
          kUseIt);
}

TEST(AdviceTest, ASlowDisk) {
  const std::string text = Advise(
      Figures({{1, 190, 190}, {8, 180, 1'130}, {32, 170, 4'000}}, {5'300, 21'000, 6'000, 25'000}));
  EXPECT_NE(text.find("syncs in 5.3 ms (99%: 21 ms)"), std::string::npos) << text;
  EXPECT_NE(text.find("faster than about 190/s"), std::string::npos) << text;
  EXPECT_NE(text.find("about 6.3 times"), std::string::npos) << text;
  EXPECT_NE(text.find("about 24 times"), std::string::npos) << text;
}

TEST(AdviceTest, ASyncThatCostsNothing) {
  const AdviceFigures figures =
      Figures({{1, 60'000, 55'000}, {8, 61'000, 50'000}, {32, 40'000, 42'000}}, {3, 8, 4, 9});
  const std::string text = Advise(figures);
  EXPECT_NE(text.find("less time than it takes to store anything"), std::string::npos) << text;
  EXPECT_EQ(text.find("cannot commit faster"), std::string::npos) << text;
  EXPECT_NE(text.find("With 8 connections expect fewer commits: 50,000/s"), std::string::npos);
  EXPECT_EQ(RecommendationOf(figures), "Recommendation: stay with stock SQLite on this disk.\n");
}

TEST(AdviceTest, InMemory) {
  AdviceFigures figures = Figures({{1, 60'000, 55'000}, {8, 30'000, 50'000}}, {1, 2, 1, 2});
  figures.in_memory = true;
  EXPECT_NE(Advise(figures).find("a sync takes no time here"), std::string::npos);
  EXPECT_EQ(RecommendationOf(figures), "Recommendation: measure a disk before you decide.\n");
}

TEST(AdviceTest, NothingIsGainedAnywhere) {
  EXPECT_EQ(RecommendationOf(Figures({{1, 5'000, 5'000}, {8, 5'000, 5'600}})),
            "Recommendation: stay with stock SQLite, unless long waits for the write lock are your"
            " trouble.\n");
}

TEST(AdviceTest, OneWriterHasNobodyToShareWith) {
  for (const double rate : {3'000.0, 5'000.0, 6'000.0}) {
    const AdviceFigures figures = Figures({{1, 5'000, rate}});
    EXPECT_NE(Advise(figures).find("With 1 connection nothing is gained"), std::string::npos);
    EXPECT_EQ(RecommendationOf(figures),
              "Recommendation: measure with as many connections as commit at the same time:"
              " --connections N.\n");
  }
}

TEST(AdviceTest, ADiskThatVaries) {
  EXPECT_EQ(Advise(Figures({{1, 5'900, 5'000}})).find("vary"), std::string::npos);
  EXPECT_NE(Advise(Figures({{1, 8'000, 5'000}})).find("vary"), std::string::npos);
}

TEST(AdviceTest, AnotherPolicy) {
  AdviceFigures figures = Figures({{8, 5'000, 15'000}});
  figures.policy = "group(max_wait_us=500,max_batch=8)";
  EXPECT_NE(RecommendationOf(figures).find("and the policy group(max_wait_us=500,max_batch=8),\n"),
            std::string::npos);
}

// Its figures are no match for stock SQLite's, which are of durable commits.
TEST(AdviceTest, APolicyThatDoesNotWait) {
  AdviceFigures figures = Figures({{1, 5'000, 80'000}, {8, 5'000, 90'000}});
  figures.policy = "interval(max_delay_us=10000)";
  EXPECT_EQ(Advise(figures).find("It just did"), std::string::npos) << "not against the disk";
  EXPECT_NE(RecommendationOf(figures).find("a power cut takes the\nlast commits"),
            std::string::npos);
}

// Where there was no time for a commit.
TEST(AdviceTest, NothingWasMeasured) {
  EXPECT_NE(Advise(Figures({})).find("Recommendation: "), std::string::npos);
  EXPECT_NE(Advise(Figures({{1, 0, 0}}, {})).find("Recommendation: "), std::string::npos);
}

}  // namespace
}  // namespace groupcommit::bench
