// Whether a transaction may change the schema, by what it writes to page 1.
#include "page1.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace groupcommit {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr int kPage = 512;
constexpr size_t kSize = 28;    // in pages
constexpr size_t kCookie = 40;  // of the schema

Bytes With(Bytes page, size_t at) {
  page[at]++;
  return page;
}

class Page1Test : public ::testing::Test {
 protected:
  void Read(const Bytes& page) { page1_.OnRead(page.data(), static_cast<int>(page.size())); }
  bool WriteChangesSchema(const Bytes& page) {
    page1_.OnBegin();
    page1_.OnWrite(page.data(), static_cast<int>(page.size()));
    return page1_.schema_may_change();
  }

  const Bytes page_ = Bytes(kPage, 7);
  Page1 page1_;
};

// Each byte but the change counter, the size, the freelist and the two versions (file format, 1.3).
TEST_F(Page1Test, SizesAreNoSchema) {
  for (size_t at = 0; at < kPage; at++) {
    Read(page_);
    const bool is_size = (at >= 24 && at < kCookie) || (at >= 92 && at < 100);
    EXPECT_EQ(WriteChangesSchema(With(page_, at)), !is_size) << at;
  }
}

TEST_F(Page1Test, WhatWasWrittenCountsNext) {
  Read(page_);
  EXPECT_TRUE(WriteChangesSchema(With(page_, kCookie)));
  EXPECT_FALSE(WriteChangesSchema(With(With(page_, kCookie), kSize)));
  EXPECT_TRUE(WriteChangesSchema(page_)) << "back again";
}

// It may be written several times: by a spill, and by the commit.
TEST_F(Page1Test, OneOfSeveralWritesIsEnough) {
  Read(page_);
  page1_.OnBegin();
  EXPECT_FALSE(page1_.schema_may_change());
  const Bytes changed = With(page_, kCookie);
  page1_.OnWrite(changed.data(), kPage);
  page1_.OnWrite(changed.data(), kPage);
  EXPECT_TRUE(page1_.schema_may_change());
}

TEST_F(Page1Test, NothingIsKnownBeforeARead) {
  EXPECT_TRUE(WriteChangesSchema(page_));
  EXPECT_TRUE(WriteChangesSchema(page_)) << "and a write is none";
}

TEST_F(Page1Test, NothingIsKnownOnceItIsForgotten) {
  Read(page_);
  page1_.Forget();
  EXPECT_TRUE(WriteChangesSchema(page_));
  Read(page_);
  EXPECT_FALSE(WriteChangesSchema(page_));
}

TEST_F(Page1Test, APageOfAnotherSizeIsAnotherDatabase) {
  Read(page_);
  EXPECT_TRUE(WriteChangesSchema(Bytes(2 * kPage, 7)));
  EXPECT_TRUE(WriteChangesSchema(page_));
  Read(Bytes(2 * kPage, 7));
  EXPECT_FALSE(WriteChangesSchema(Bytes(2 * kPage, 7)));
}

// A snapshot's: one that finds nothing to read has the page in SQLite's cache.
TEST_F(Page1Test, TheSchemaIsNewIfSomebodyElseHasChangedIt) {
  const Bytes changed = With(page_, kCookie);
  Read(page_);
  EXPECT_FALSE(page1_.schema_is_new()) << "nothing was prepared before";
  Read(With(page_, kSize));
  EXPECT_FALSE(page1_.schema_is_new());
  Read(changed);
  EXPECT_TRUE(page1_.schema_is_new());
  page1_.OnSnapshot();
  Read(changed);
  EXPECT_FALSE(page1_.schema_is_new());
  WriteChangesSchema(page_);
  Read(page_);
  EXPECT_FALSE(page1_.schema_is_new()) << "it was this connection";
}

}  // namespace
}  // namespace groupcommit
