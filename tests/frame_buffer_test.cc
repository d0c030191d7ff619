#include "frame_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace groupcommit {
namespace {

constexpr int kPage = 512;

class FrameBufferTest : public ::testing::Test {
 protected:
  static std::vector<uint8_t> Header(uint32_t database_size) {
    std::vector<uint8_t> header(kFrameHeaderSize);
    header[3] = 1;  // the page's number
    header[7] = static_cast<uint8_t>(database_size);
    return header;
  }
  bool AddHeader(int64_t offset, uint32_t database_size = 0) {
    return buffer_.Add(Header(database_size).data(), kFrameHeaderSize, offset);
  }
  bool AddPage(int64_t offset, uint8_t fill = 7, int size = kPage) {
    return buffer_.Add(std::vector<uint8_t>(static_cast<size_t>(size), fill).data(), size, offset);
  }

  FrameMemory memory_;
  FrameBuffer buffer_{&memory_};
};

TEST_F(FrameBufferTest, HoldsFramesThatFollowEachOther) {
  const int64_t second = FrameOffset(2, kPage);
  EXPECT_FALSE(buffer_.is_pending());
  EXPECT_TRUE(AddHeader(FrameOffset(1, kPage)));
  EXPECT_TRUE(AddPage(FrameOffset(1, kPage) + kFrameHeaderSize, 1));
  EXPECT_TRUE(AddHeader(second, 9));
  EXPECT_TRUE(AddPage(second + kFrameHeaderSize, 2));
  EXPECT_EQ(buffer_.offset(), kWalHeaderSize);
  EXPECT_EQ(buffer_.end(), FrameOffset(3, kPage));
  EXPECT_EQ(buffer_.data()[kFrameHeaderSize], 1);
  EXPECT_EQ(buffer_.data()[second - kWalHeaderSize + 7], 9);
  EXPECT_EQ(buffer_.data()[second - kWalHeaderSize + kFrameHeaderSize], 2);
}

TEST_F(FrameBufferTest, BeginsWithAFrameHeaderOnly) {
  EXPECT_FALSE(AddPage(FrameOffset(1, kPage) + kFrameHeaderSize));
  EXPECT_FALSE(AddHeader(0)) << "that would be a part of the header of the log";
  EXPECT_FALSE(buffer_.is_pending());
}

TEST_F(FrameBufferTest, TakesNothingThatLiesElsewhere) {
  ASSERT_TRUE(AddHeader(FrameOffset(3, kPage)));
  for (const int64_t offset : {FrameOffset(3, kPage), FrameOffset(4, kPage), int64_t{32}}) {
    EXPECT_FALSE(AddPage(offset));
  }
  EXPECT_EQ(buffer_.size(), kFrameHeaderSize);
}

TEST_F(FrameBufferTest, TakesNoMoreThanThereIsRoomFor) {
  int64_t offset = kWalHeaderSize;
  ASSERT_TRUE(AddHeader(offset));
  offset += kFrameHeaderSize;
  ASSERT_TRUE(AddPage(offset, 7, 65536)) << "the largest page fits";
  offset += 65536;
  while (AddHeader(offset)) offset += kFrameHeaderSize;
  EXPECT_EQ(buffer_.size(), FrameMemory::kCapacity);
  EXPECT_EQ(buffer_.end(), offset);
}

TEST_F(FrameBufferTest, WhatIsWrittenIsHeldUntilMoreComes) {
  ASSERT_TRUE(AddHeader(kWalHeaderSize, 1));
  ASSERT_TRUE(AddPage(kWalHeaderSize + kFrameHeaderSize, 5));
  EXPECT_TRUE(buffer_.is_pending());
  buffer_.SetWritten();
  EXPECT_FALSE(buffer_.is_pending());
  EXPECT_EQ(buffer_.data()[kFrameHeaderSize], 5);
  ASSERT_TRUE(AddHeader(FrameOffset(2, kPage)));
  EXPECT_TRUE(buffer_.is_pending());
  EXPECT_EQ(buffer_.offset(), FrameOffset(2, kPage));
}

TEST_F(FrameBufferTest, HoldsWhatIsPendingAsAWhole) {
  const int64_t begin = FrameOffset(2, kPage);
  ASSERT_TRUE(AddHeader(begin));
  ASSERT_TRUE(AddPage(begin + kFrameHeaderSize));
  EXPECT_TRUE(buffer_.Holds(kFrameHeaderSize, begin));
  EXPECT_TRUE(buffer_.Holds(kPage, begin + kFrameHeaderSize));
  EXPECT_FALSE(buffer_.Holds(kPage, begin + kFrameHeaderSize + 1));
  EXPECT_FALSE(buffer_.Holds(kPage, begin - 1));
  buffer_.SetWritten();
  EXPECT_FALSE(buffer_.Holds(kPage, begin + kFrameHeaderSize));
}

TEST_F(FrameBufferTest, WhatIsClearedIsForgotten) {
  ASSERT_TRUE(AddHeader(kWalHeaderSize, 1));
  buffer_.Clear();
  EXPECT_FALSE(buffer_.is_pending());
  ASSERT_TRUE(AddHeader(FrameOffset(2, kPage)));
  EXPECT_TRUE(AddPage(FrameOffset(2, kPage) + kFrameHeaderSize));
}

TEST_F(FrameBufferTest, TheNextTransactionHasTheSameMemory) {
  FrameBuffer next{&memory_};
  const auto add = [](FrameBuffer& buffer) {
    EXPECT_TRUE(buffer.Add(Header(1).data(), kFrameHeaderSize, kWalHeaderSize));
    return buffer.data();
  };
  const uint8_t* const lent = add(buffer_);
  buffer_.GiveBack();
  EXPECT_FALSE(buffer_.is_pending());
  EXPECT_EQ(add(next), lent);
  EXPECT_NE(add(buffer_), lent) << "it is not back yet";
  buffer_.GiveBack();
  next.GiveBack();
  next.GiveBack();  // it has none
}

}  // namespace
}  // namespace groupcommit
