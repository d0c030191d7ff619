// A log of which a commit fails behind its xSync: the wal-index cannot grow.
//
// wal.c: walIndexAppend() asks for another region of the wal-index after so many frames, when the
// commit has written its frames and has been promised its sync.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_WAL_INDEX_GROWTH_H_
#define GROUPCOMMIT_TESTS_SUPPORT_WAL_INDEX_GROWTH_H_

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <string>

#include "support/fault_test.h"

namespace groupcommit::testing {

class WalIndexGrowthFixture : public FaultTest {
 protected:
  // wal.c: HASHTABLE_NPAGE_ONE, then HASHTABLE_NPAGE.
  static constexpr int kFramesOfRegion[] = {4062, 4062 + 4096};
  static constexpr int kPageSize = 512;
  static constexpr char kOneFrame[] = "REPLACE INTO small(rowid, x) VALUES(1, random())";

  // Nothing but the test ends the growth of the log. Makes a table of one page, `small`.
  void StartToGrow(const std::string& vfs) {
    Start(vfs, kPageSize);
    for (Db* db : {&a_, &b_, &c_}) db->ExecOk("PRAGMA wal_autocheckpoint=0");
    a_.ExecOk("CREATE TABLE filler(x); CREATE TABLE small(x)");
  }

  // Commits until the log has so many frames.
  void FillLog(int frames) {
    constexpr int kFrameSize = 24 + kPageSize;
    const auto missing = [&] {
      return frames - static_cast<int>(std::filesystem::file_size(path() + "-wal")) / kFrameSize;
    };
    while (missing() > 20) {
      // A row of n pages writes a few more; n is small enough for the page cache.
      const int pages = std::min(missing() - 10, 1000);
      a_.ExecOk("INSERT INTO filler VALUES(zeroblob(" + std::to_string(pages * (kPageSize - 10)) +
                "))");
    }
    while (missing() > 0) a_.ExecOk(kOneFrame);
    ExpectLedger();
  }

  // That region, and those behind it, cannot be mapped from now on.
  void BreakGrowth(int region, int code = SQLITE_IOERR_SHMMAP) {
    storage_.SetFaultHook([this, region, code](const Call& call) {
      if (call.op != Op::kShmMap || call.offset < region) return SQLITE_OK;
      refused_++;
      return code;
    });
  }
  void MendGrowth() { storage_.SetFaultHook(nullptr); }

  std::atomic<int> refused_{0};
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_WAL_INDEX_GROWTH_H_
