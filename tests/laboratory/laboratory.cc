#include "laboratory/laboratory.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>
#include <vector>

#include "groupcommit.h"
#include "laboratory/inspect.h"
#include "laboratory/memory_vfs.h"
#include "laboratory/recorder.h"
#include "laboratory/workload.h"
#include "support/sqlite_helpers.h"

namespace groupcommit::testing {
namespace {

// One state in so many is looked at through real files and the VFS "unix".
constexpr int kRealFilesEvery = 50;

struct Close {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
};
using Connection = std::unique_ptr<sqlite3, Close>;

// Opens a database as found after the power cut. Does not copy the log into it when it is closed.
Connection OpenState(const std::string& path, const char* vfs) {
  sqlite3* db = nullptr;
  sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE, vfs);
  Connection owned(db);
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return owned;
}

std::string BaseName(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

void WriteFiles(const std::map<std::string, Bytes>& disk, const std::string& dir) {
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  for (const auto& [path, bytes] : disk) {
    std::ofstream out(dir + "/" + BaseName(path), std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
  }
}

// Points of the record at which to cut: any, and more of those right after the world was told
// something, when nothing may be missing.
std::vector<Cut> DrawCuts(const Record& record, int n, Random& random) {
  std::vector<int64_t> told;
  std::set<std::pair<uint32_t, CommitId>> seen;
  int64_t point = 0;
  for (const Event* event = record.First(); event != nullptr; event = record.Next(event)) {
    point++;
    const bool is_news = event->kind == Event::kSeen && seen.insert({event->file, event->a}).second;
    if (is_news || event->kind == Event::kAcknowledged || event->kind == Event::kFlushed ||
        event->kind == Event::kGone) {
      told.push_back(point);
    }
  }
  std::vector<Cut> cuts;
  for (int i = 0; i < n; i++) {
    Cut cut;
    cut.point = random.Below(static_cast<int>(point) + 1);
    if (random.OneIn(2) && !told.empty()) {
      cut.point = told[static_cast<size_t>(random.Below(static_cast<int>(told.size())))];
    }
    cut.survivors = static_cast<Survivors>(random.Below(kSurvivorKinds));
    cut.seed = random.Next();
    cuts.push_back(cut);
  }
  // Finally what the machine itself sees.
  cuts.push_back({point, Survivors::kAll, 0});
  std::sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) { return a.point < b.point; });
  return cuts;
}

std::string FirstMistake(const Record& record) {
  for (const Event* event = record.First(); event != nullptr; event = record.Next(event)) {
    if (event->kind == Event::kMistake) return std::string(event->data());
  }
  return "";
}

std::string ToText(const Cut& cut) {
  return std::to_string(cut.point) + "," + std::to_string(static_cast<int>(cut.survivors)) + "," +
         std::to_string(cut.seed);
}

}  // namespace

Laboratory::Laboratory() {
  // For the whole process: a VFS is never unregistered here.
  RegisterRecorder(&record_);
  RegisterMemoryVfs();
  groupcommit_register(kShimVfs, kRecorderVfs, 0, nullptr);
}

bool Laboratory::Run(Flavour flavour, uint64_t seed, int states) {
  Plan plan = DrawPlan(flavour, seed);
  if (stock_) {
    plan.stock_processes += std::exchange(plan.shim_processes, 0);
    // SQLite itself loses acknowledged commits on top of others without a sync, if one fails.
    if (plan.log_failures > 0) plan.normal = false;
  }
  const TempDir dir;
  RunWorkload(plan, dir.path(), &record_);
  runs_++;
  events_ += record_.count();
  const std::string mistake = FirstMistake(record_);
  if (!mistake.empty()) {
    Explain(plan, mistake, nullptr, {});
    return false;
  }
  Random random(Mix(seed) + 1);
  Replay replay(&record_);
  for (const Cut& cut : DrawCuts(record_, states, random)) {
    replay.AdvanceTo(cut.point);
    const std::string wrong = TryState(replay, cut, plan.databases);
    if (wrong.empty()) continue;
    Explain(plan, wrong, &replay, cut);
    return false;
  }
  return true;
}

// Or is it what the machine itself sees at the end?
bool Laboratory::IsPowerCut(const Cut& cut) const {
  return cut.survivors != Survivors::kAll || cut.point < record_.count();
}

std::map<std::string, Bytes> Laboratory::StateOf(const Replay& replay, const Cut& cut) const {
  return IsPowerCut(cut) ? replay.Disk(cut.survivors, cut.seed) : replay.Files();
}

std::string Laboratory::TryState(const Replay& replay, const Cut& cut, int databases) {
  std::map<std::string, Bytes> disk = StateOf(replay, cut);
  const bool real = states_++ % kRealFilesEvery == 0;
  return real ? LookAtFiles(disk, replay, cut, databases)
              : LookAt(std::move(disk), replay, cut, databases);
}

std::string Laboratory::LookAt(std::map<std::string, Bytes> disk, const Replay& replay,
                               const Cut& cut, int databases) {
  SetMemoryFiles(&disk);
  std::string wrong;
  for (int i = 0; i < databases && wrong.empty(); i++) {
    const auto found = std::find_if(disk.begin(), disk.end(), [i](const auto& file) {
      return BaseName(file.first) == kDatabaseFiles[i];
    });
    if (found == disk.end()) continue;  // not opened yet
    const Connection db = OpenState(found->first, kMemoryVfs);
    sqlite3_exec(db.get(), "PRAGMA locking_mode=EXCLUSIVE", nullptr, nullptr, nullptr);
    wrong = Inspect(db.get(), replay.knowledge(i), IsPowerCut(cut));
    if (!wrong.empty()) wrong = std::string(kDatabaseFiles[i]) + ": " + wrong;
  }
  SetMemoryFiles(nullptr);
  return wrong;
}

std::string Laboratory::LookAtFiles(const std::map<std::string, Bytes>& disk, const Replay& replay,
                                    const Cut& cut, int databases) {
  const TempDir dir;
  WriteFiles(disk, dir.path());
  for (int i = 0; i < databases; i++) {
    if (!std::filesystem::exists(dir.File(kDatabaseFiles[i]))) continue;
    const Connection db = OpenState(dir.File(kDatabaseFiles[i]), "unix");
    const std::string wrong = Inspect(db.get(), replay.knowledge(i), IsPowerCut(cut));
    if (!wrong.empty()) return std::string(kDatabaseFiles[i]) + ": " + wrong;
  }
  return "";
}

void Laboratory::Explain(const Plan& plan, const std::string& wrong, const Replay* replay,
                         const Cut& cut) {
  const std::string seed = std::to_string(plan.seed);
  const std::string dir = failure_dir_ + "/laboratory-" + NameOf(plan.flavour) + "-" + seed;
  std::filesystem::create_directories(dir);
  record_.Save(dir + "/record");
  explains_ = "laboratory: FAILED: " + wrong + "\n  " + ToText(plan) + "\n";
  if (replay != nullptr) {
    WriteFiles(StateOf(*replay, cut), dir + "/state");
    explains_ += "  its files:       " + dir +
                 "/state\n  this state again: build/tests/torture --record " + dir +
                 "/record --state " + ToText(cut) + " --out DIR\n";
  }
  explains_ += "  the run again:   build/tests/torture --flavour " +
               std::string(NameOf(plan.flavour)) + " --seed " + seed + " --repeat 50\n";
}

bool Laboratory::Again(const std::string& record, const Cut& cut, const std::string& out) {
  if (!record_.Load(record)) {
    explains_ = "laboratory: cannot read " + record + "\n";
    return false;
  }
  Replay replay(&record_);
  replay.AdvanceTo(cut.point);
  if (!out.empty()) WriteFiles(StateOf(replay, cut), out);
  const std::string wrong = TryState(replay, cut, kDatabases);
  if (!wrong.empty()) explains_ = "laboratory: FAILED: " + wrong + "\n";
  return wrong.empty();
}

}  // namespace groupcommit::testing
