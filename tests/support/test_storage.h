// Storage for tests: a SQLite VFS that wraps "unix" and knows which bytes a
// power cut would leave, makes syncs slow, fail or wait, injects errors into
// any call, and shows every call to an observer.
//
//   TestStorage storage("power");
//   Db db(path, "power");                      // or below another VFS
//   storage.HoldSyncs(FileKind::kWal);
//   ... another thread commits ...
//   ASSERT_TRUE(storage.WaitForHeldSyncs(1));  // its sync has begun
//   storage.CutInto(dir);                      // the power goes
//   storage.OpenGate();
//
// What it takes for durable:
//   - what a file held when it was first opened through this storage;
//   - a write or truncation that was over before a sync of the same file began,
//     through whatever handle, once that sync has succeeded;
//   - the creation (empty) and the deletion of a file, at once.
// The live file always has every byte, like the page cache of a real machine.
// By default no sync reaches the disk: it would cost time and prove nothing.
//
// It follows the files named in xOpen, not temporary ones.  It does not see
// what others write behind its back: see ForgetClosedFiles().
#ifndef GROUPCOMMIT_TESTS_SUPPORT_TEST_STORAGE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_TEST_STORAGE_H_

#include <sqlite3.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "mutex.h"
#include "support/file_image.h"

namespace groupcommit::testing {

enum class FileKind { kMainDb, kWal, kJournal, kOther };
inline constexpr size_t kFileKinds = 4;

// The methods of sqlite3_io_methods, then those of sqlite3_vfs.
enum class Op {
  kClose,
  kRead,
  kWrite,
  kTruncate,
  kSync,
  kFileSize,
  kLock,
  kUnlock,
  kCheckReservedLock,
  kFileControl,
  kSectorSize,
  kDeviceCharacteristics,
  kShmMap,
  kShmLock,
  kShmBarrier,
  kShmUnmap,
  kFetch,
  kUnfetch,
  kOpen,
  kDelete,
  kAccess,
  kFullPathname,
  kDlOpen,
  kDlError,
  kDlSym,
  kDlClose,
  kRandomness,
  kSleep,
  kCurrentTime,
  kGetLastError,
  kCurrentTimeInt64,
  kSetSystemCall,
  kGetSystemCall,
  kNextSystemCall,
};

// "xClose", "xRead", ...
const char* OpName(Op op);

// One call that arrived at the storage.
struct Call {
  Op op;
  FileKind kind = FileKind::kOther;    // kOther where there is no open file
  const char* path = "";               // "" if the call or the file has none
  const sqlite3_file* file = nullptr;  // the handle, as the layer above knows it
  int64_t offset = 0;                  // bytes; xTruncate: the new size; xShmLock: the first lock;
                                       // xShmMap: the region
  int64_t amount = 0;  // bytes; xShmLock: the number of locks; xSleep: microseconds;
                       // SQLITE_FCNTL_LOCK_TIMEOUT: milliseconds
  int flags = 0;       // of xOpen, xSync, xAccess, xShmLock; the level of xLock and
                       // xUnlock; the op code of xFileControl; xDelete's dirSync;
                       // xShmMap's bExtend; xShmUnmap's deleteFlag
};

struct FileCounters {
  int64_t syncs = 0;         // that began
  int64_t failed_syncs = 0;  // of these, the ones that ended in an error
  int64_t writes = 0;
  int64_t bytes_written = 0;
};

// All functions may be called from any thread at any time, also from hooks,
// unless their comment says otherwise.
class TestStorage {
 public:
  // Registers a VFS called `name` over the VFS called `base`; not the default.
  explicit TestStorage(std::string name, const char* base = "unix");

  // REQUIRES: every file is closed, and no VFS on top of this one is left.
  ~TestStorage();

  TestStorage(const TestStorage&) = delete;
  TestStorage& operator=(const TestStorage&) = delete;

  const std::string& name() const { return name_; }

  // ---- The power cut ----

  // Writes into the directory `dir` what is left of every file if the power
  // goes now, under the files' base names, all at one moment.  Makes `dir`, or
  // empties it if it exists; it must not be one the storage has files in.
  void CutInto(const std::string& dir, CutMode mode = CutMode::kDropUnsynced, uint64_t seed = 0);

  // The same as path -> bytes.
  std::map<std::string, Bytes> DurableImages(CutMode mode = CutMode::kDropUnsynced,
                                             uint64_t seed = 0) const;

  // Writes and truncations of all files of that kind that a cut may take away.
  size_t UnsyncedChanges(FileKind kind) const;

  // Forgets every file that is not open: what it holds when it is opened next
  // counts as durable.  To be called after something else (a stock connection,
  // the sqlite3 shell, the test itself) changed files.
  void ForgetClosedFiles();

  // ---- Syncs: cost and failure ----

  // Every sync takes this long.  For load tests, never to order threads.
  void SetSyncDelay(std::chrono::microseconds delay) { sync_delay_us_ = delay.count(); }

  // Also syncs the real file.  Off by default.
  void SetRealSync(bool on) { real_sync_ = on; }

  // Fails the first-th next sync of that kind (1 is the very next to begin) and
  // the count-1 that begin after it.  Replaces the kind's earlier order.
  void FailSyncs(FileKind kind, int first, int count, int code = SQLITE_IOERR_FSYNC);

  // What a failed sync does to the writes that it covers, from whatever cause:
  // kLost (the default) or kPending.
  void SetFailedSyncEnd(SyncEnd end) { failed_sync_end_ = end; }

  // Linux tells an error of fdatasync once to each file descriptor that was open
  // when it happened.  With this on, the next otherwise successful sync through
  // each other handle of the file returns the error, before it has made anything
  // durable (ext4_sync_file()).  Off by default.  On, it says so by
  // GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD.
  void SetErrorPerHandle(bool on) { error_per_handle_ = on; }

  // ---- The gate ----

  // From now on every sync of that kind blocks once it has begun, that is when it
  // is settled which writes it covers.  May be called for several kinds.
  void HoldSyncs(FileKind kind);

  // Lets the n syncs through that have been held longest; they end with `result`
  // (an error fails them).  Returns how many there were; none that arrives later
  // takes the place of a missing one.
  int ReleaseSyncs(int n, int result = SQLITE_OK);

  // Holds no more; those that are held stay so.
  void StopHolding();

  // Lets all through and holds no more.
  void OpenGate();

  // Waits until at least n syncs are held.  False after kHangs: the test has failed.
  [[nodiscard]] bool WaitForHeldSyncs(int n);
  int HeldSyncs() const;

  // ---- Faults and observation ----

  // Asked before each call of xOpen, xDelete, xAccess, xRead, xWrite, xTruncate,
  // xSync, xFileSize, xLock, xFileControl, xShmMap and xShmLock; anything but
  // SQLITE_OK is returned in place of the call.  An unlock (xShmLock) is done all
  // the same.  A sync has begun when it is asked, and has passed the gate.
  // SQLITE_NOTFOUND from xShmMap: that region is not there yet.
  using FaultHook = std::function<int(const Call&)>;
  void SetFaultHook(FaultHook hook);

  // So many bytes of an xWrite that the fault hook fails reach the file before
  // the error.  0 by default.
  void SetShortWriteBytes(int bytes) { short_write_bytes_ = bytes; }

  // Told of every call before it is carried out; of an xSync when it has begun,
  // before the gate.
  using Observer = std::function<void(const Call&)>;
  void SetObserver(Observer observer);

  // Both hooks run on the calling thread without any lock, so they may block and
  // may use the storage.  One that runs on another thread when it is replaced may
  // end after SetFaultHook() or SetObserver() has returned.

  FileCounters Counters(FileKind kind) const;
  void ResetCounters();

  // ---- What the storage claims to be ----

  // iVersion (1 to 3) of the sqlite3_io_methods of files opened from now on.  The
  // methods that the version lacks are null.
  void SetIoVersion(int version) { io_version_ = version; }

  // iVersion (1 to 3) of the sqlite3_vfs, as above.
  // REQUIRES: nothing uses the VFS yet.
  void SetVfsVersion(int version);

  // True answers SQLITE_FCNTL_LOCK_TIMEOUT like a "unix" VFS that was built with
  // SQLITE_ENABLE_SETLK_TIMEOUT. (Locks are still refused at once.)  Off by default.
  void SetLockTimeouts(bool on) { lock_timeouts_ = on; }

  // False does not let frames of a log be written by one call
  // (GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED).  On by default.
  void SetJoinWrites(bool on) { join_writes_ = on; }

  // False takes SQLITE_IOCAP_POWERSAFE_OVERWRITE off the device characteristics.
  void SetPowersafeOverwrite(bool on) { powersafe_overwrite_ = on; }

 private:
  // What all handles of one path share.
  struct TrackedFile {
    FileKind kind = FileKind::kOther;
    FileImage image;
    int handles = 0;
    uint64_t sync_errors = 0;
    int last_sync_error = SQLITE_OK;
  };
  // One sync that waits at the gate, on the stack of its thread.
  struct HeldSync {
    bool released = false;
    int result = SQLITE_OK;
  };
  struct Kind {
    FileCounters counters;
    int64_t syncs_ever = 0;  // began; not reset
    int64_t fail_from = 0;   // by syncs_ever; nothing while fail_from == fail_to
    int64_t fail_to = 0;
    int fail_code = SQLITE_OK;
    bool held = false;
  };
  struct Hooks {
    FaultHook fault;
    Observer observer;
  };
  struct Handle;     // our sqlite3_file; test_storage_vfs.cc
  struct Callbacks;  // what the sqlite3_vfs and the sqlite3_io_methods point to

  // The hooks, or null if there are none.
  std::shared_ptr<const Hooks> CurrentHooks() const;
  // Tells the observer, then asks the fault hook, where `faults`.
  int Before(const Call& call, bool faults) const;

  int Open(const Call& call, Handle& handle, int* out_flags);
  int Close(Handle& handle);
  int Delete(const char* path, int sync_dir);
  void RecordOpen(Handle& handle) REQUIRES(names_mutex_);
  void RecordWrite(const Handle& handle, int64_t offset, const void* data, int amount);
  void RecordTruncate(const Handle& handle, int64_t size);
  int Sync(Handle& handle, int flags);
  int PassGate(FileKind kind);

  Kind& OfKind(FileKind kind) REQUIRES(mutex_) { return kinds_[static_cast<size_t>(kind)]; }
  const Kind& OfKind(FileKind kind) const REQUIRES(mutex_) {
    return kinds_[static_cast<size_t>(kind)];
  }

  const std::string name_;
  sqlite3_vfs* const base_;
  sqlite3_vfs vfs_;

  std::atomic<int64_t> sync_delay_us_{0};
  std::atomic<bool> real_sync_{false};
  std::atomic<SyncEnd> failed_sync_end_{SyncEnd::kLost};
  std::atomic<bool> error_per_handle_{false};
  std::atomic<int> short_write_bytes_{0};
  std::atomic<int> io_version_{3};
  std::atomic<bool> powersafe_overwrite_{true};
  std::atomic<bool> join_writes_{true};
  std::atomic<bool> lock_timeouts_{false};

  // Held while a file is opened or deleted, so that a path and its TrackedFile
  // come and go together.  Taken before mutex_; never while a hook runs.
  Mutex names_mutex_;

  mutable Mutex mutex_;
  CondVar gate_changed_;  // with mutex_
  // What the pointers lead to is guarded by mutex_, too.
  std::map<std::string, std::shared_ptr<TrackedFile>> files_ GUARDED_BY(mutex_);
  std::array<Kind, kFileKinds> kinds_ GUARDED_BY(mutex_);
  std::deque<HeldSync*> held_ GUARDED_BY(mutex_);  // by arrival
  int open_handles_ GUARDED_BY(mutex_) = 0;

  mutable Mutex hooks_mutex_;
  std::shared_ptr<const Hooks> hooks_ GUARDED_BY(hooks_mutex_);
  std::atomic<bool> has_hooks_{false};  // spares calls without hooks the mutex
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_TEST_STORAGE_H_
