// What survives of a file: marks, lost writes, cuts, and the bound on memory.
#include "support/file_image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace groupcommit::testing {
namespace {

std::string Text(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

void Put(FileImage& image, int64_t offset, const std::string& text) {
  image.Write(offset, text.data(), text.size());
}

TEST(FileImage, ASyncCoversWhatWasRecordedBeforeItBegan) {
  FileImage image;
  Put(image, 0, "before");
  const FileImage::Mark mark = image.BeginSync();
  Put(image, 6, " during");
  image.EndSync(mark, SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), "before");
  EXPECT_EQ(image.unsynced_changes(), 1u);
}

TEST(FileImage, OverlappingSyncsMayEndInAnyOrder) {
  for (bool second_first : {false, true}) {
    FileImage image;
    Put(image, 0, "a");
    const FileImage::Mark first = image.BeginSync();
    Put(image, 1, "b");
    const FileImage::Mark second = image.BeginSync();
    Put(image, 2, "c");
    image.EndSync(second_first ? second : first, SyncEnd::kDurable);
    EXPECT_EQ(Text(image.durable()), second_first ? "ab" : "a");
    image.EndSync(second_first ? first : second, SyncEnd::kDurable);
    EXPECT_EQ(Text(image.durable()), "ab");
  }
}

TEST(FileImage, AnOldSyncDoesNotBringBackOldBytes) {
  FileImage image;
  Put(image, 0, "old");
  const FileImage::Mark slow = image.BeginSync();
  Put(image, 0, "new");
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  image.EndSync(slow, SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), "new");
}

TEST(FileImage, LostWritesStayLostUntilWrittenAgain) {
  FileImage image;
  Put(image, 0, "lost");
  image.EndSync(image.BeginSync(), SyncEnd::kLost);
  Put(image, 4, "kept");
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), std::string(4, '\0') + "kept");
  Put(image, 0, "back");
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), "backkept");
}

TEST(FileImage, AnOverlappingSyncDoesNotSaveLostWrites) {
  FileImage image;
  Put(image, 0, "a");
  const FileImage::Mark failing = image.BeginSync();
  Put(image, 1, "b");
  const FileImage::Mark other = image.BeginSync();
  image.EndSync(failing, SyncEnd::kLost);
  image.EndSync(other, SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), std::string(1, '\0') + "b");
}

TEST(FileImage, PendingWritesWaitForTheNextSync) {
  FileImage image;
  Put(image, 0, "again");
  image.EndSync(image.BeginSync(), SyncEnd::kPending);
  EXPECT_EQ(Text(image.durable()), "");
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), "again");
}

TEST(FileImage, TruncationsAreChangesLikeWrites) {
  FileImage image(Bytes{'a', 'b', 'c', 'd'});
  image.Truncate(2);
  Put(image, 3, "x");
  EXPECT_EQ(Text(image.durable()), "abcd");
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), std::string("ab\0x", 4));
  image.Truncate(6);
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  EXPECT_EQ(Text(image.durable()), std::string("ab\0x\0\0", 6));
}

TEST(FileImage, ACutKeepsNoneSomeOrAllOfTheUnsynced) {
  std::mt19937_64 random(1);
  FileImage image(Bytes{'0', '0', '0'});
  for (int64_t i = 0; i < 3; ++i) Put(image, i, "1");
  EXPECT_EQ(Text(image.AfterCut(CutMode::kDropUnsynced, random)), "000");
  EXPECT_EQ(Text(image.AfterCut(CutMode::kKeepAll, random)), "111");
  std::vector<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    seen.push_back(Text(image.AfterCut(CutMode::kKeepRandom, random)));
  }
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  EXPECT_EQ(seen.size(), 8u) << "every subset turns up";
}

// Enough changes to be compacted many times, beside a plain copy of the file.
TEST(FileImage, CompactionBoundsMemoryAndChangesNothing) {
  constexpr size_t kPage = 4096;
  constexpr size_t kFileBytes = size_t{4} << 20;
  std::mt19937_64 random(7);
  FileImage image;
  Bytes model;
  size_t most_bytes = 0;
  for (int i = 0; i < 60'000; ++i) {
    if (random() % 500 == 0) {
      const size_t size = random() % kFileBytes;
      image.Truncate(static_cast<int64_t>(size));
      model.resize(size);
    } else {
      const size_t offset = random() % (kFileBytes / 1024) * 1024;
      const Bytes page(1 + random() % kPage, static_cast<uint8_t>(random()));
      image.Write(static_cast<int64_t>(offset), page.data(), page.size());
      if (model.size() < offset + page.size()) model.resize(offset + page.size());
      std::copy(page.begin(), page.end(),
                model.begin() + static_cast<Bytes::difference_type>(offset));
    }
    most_bytes = std::max(most_bytes, image.unsynced_bytes());
  }
  EXPECT_LT(most_bytes, size_t{64} << 20);
  image.EndSync(image.BeginSync(), SyncEnd::kDurable);
  EXPECT_TRUE(image.durable() == model);
  EXPECT_EQ(image.unsynced_bytes(), 0u);
}

}  // namespace
}  // namespace groupcommit::testing
