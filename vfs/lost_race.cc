#include "lost_race.h"

#include <algorithm>
#include <climits>
#include <utility>

namespace groupcommit {
namespace {

constexpr int64_t kNanosPerMicro = 1000;

// The write lock that this thread was last refused.
struct Lost {
  ~Lost();
  enum class Stage : uint8_t {
    kNothing,
    kRefused,  // and the thread has asked for nothing since: it may be about to sleep for it
    kSlept,    // for its turn: it will ask again
    kHas,      // it has got the lock, and its statement may have to wait for another one
    kReaders,  // and that is one that readers have
  };
  Stage stage = Stage::kNothing;
  bool elsewhere = false;  // the lock was not another thread's of this process
  std::shared_ptr<WriteQueue> queue;
  WriteQueue::Writer writer = WriteQueue::kNobody;
  uint64_t fork_generation = 0;
  enum class PutOff : uint8_t { kNone, kNext, kDone };
  PutOff put_off = PutOff::kNone;
  bool is_first = false;  // the last sleep was its statement's first one
  bool is_final = false;  // the last sleep was the final one
  int micros = 0;         // how long the last sleep was; 0: there has been none
  bool goes_on = false;   // `until` is that of the statement's sleeps for another lock
  uint64_t ticket = 0;    // from the first refusal on
  int64_t until = 0;      // when its sleeps would have ended, had none been cut short; ns
};
thread_local Lost lost;
// Destructors of static objects run after those of the main thread, and may use a database.
thread_local bool lost_is_gone = false;

Lost::~Lost() { lost_is_gone = true; }

// The first sleep of SQLite's busy handler takes 1 ms, and no other one does, but the last perhaps
// (main.c: sqliteDefaultBusyCallback()).
bool IsFirst(int micros) {
  constexpr int kFirstSleepMicros = 1'000;
  return micros <= kFirstSleepMicros;
}

// What sleeps for another lock were cut short by, if the statement is still the same.
int64_t OwedNanos(int micros, int64_t now) {
  return IsFirst(micros) ? 0 : std::max<int64_t>(lost.until - now, 0);
}

}  // namespace

void LostRace::Note(const std::shared_ptr<WriteQueue>& queue, WriteQueue::Writer writer,
                    bool elsewhere) {
  if (lost_is_gone) return;
  if (lost.stage != Lost::Stage::kSlept || lost.writer != writer) {
    lost.goes_on = lost.stage == Lost::Stage::kHas && lost.writer != writer;
    if (!lost.goes_on) lost.until = lost.micros = 0;
    if (lost.queue != queue) lost.queue = queue;
    lost.writer = writer;
    lost.fork_generation = ForkGeneration();
    lost.ticket = queue->NewTicket();
  }
  lost.stage = Lost::Stage::kRefused;
  lost.elsewhere = elsewhere;
}

void LostRace::OnAcquired(WriteQueue::Writer writer) {
  if (lost_is_gone || lost.writer != writer) return;
  lost.stage = lost.stage == Lost::Stage::kSlept ? Lost::Stage::kHas : Lost::Stage::kNothing;
}

void LostRace::OnReleased(WriteQueue::Writer writer) {
  if (lost_is_gone || lost.writer != writer) return;
  const bool had = lost.stage == Lost::Stage::kHas || lost.stage == Lost::Stage::kReaders;
  if (had) lost.stage = Lost::Stage::kNothing;
}

void LostRace::NoteReaders(WriteQueue::Writer writer) {
  if (lost_is_gone || lost.writer != writer) return;
  if (lost.stage == Lost::Stage::kHas) lost.stage = Lost::Stage::kReaders;
}

void LostRace::PutOffSleep() {
  if (!lost_is_gone) lost.put_off = Lost::PutOff::kNext;
}

bool LostRace::HasPutOffSleep() {
  if (lost_is_gone) return false;
  const bool done = std::exchange(lost.put_off, Lost::PutOff::kNone) == Lost::PutOff::kDone;
  return done && lost.stage == Lost::Stage::kSlept;
}

void LostRace::Pass() {
  if (lost_is_gone) return;
  lost.put_off = Lost::PutOff::kNone;
  if (lost.stage == Lost::Stage::kRefused) lost.stage = Lost::Stage::kNothing;
  if (lost.stage == Lost::Stage::kReaders) lost.stage = Lost::Stage::kHas;
}

bool LostRace::IsFirstSleep() { return !lost_is_gone && lost.is_first; }

bool LostRace::IsFinalSleep() { return !lost_is_gone && lost.is_final; }

void LostRace::MakeUpForSleep() {
  if (lost_is_gone) return;
  const int64_t deadline = lost.until + (lost.elsewhere ? 0 : lost.queue->late_nanos());
  lost.queue->AwaitTurn(lost.writer, lost.ticket, deadline, !lost.elsewhere);
}

bool LostRace::Sleep(int micros) {
  if (lost_is_gone) return false;
  if (lost.stage != Lost::Stage::kRefused || lost.fork_generation != ForkGeneration()) return false;
  lost.stage = Lost::Stage::kSlept;
  lost.is_first = IsFirst(micros);
  lost.is_final = micros < std::exchange(lost.micros, micros);
  // What an early end saved is slept later, what a late one took is not slept again.
  const int64_t now = lost.queue->clock().NowNanos();
  if (lost.until == 0) lost.until = now;
  if (std::exchange(lost.goes_on, false)) lost.until = now + OwedNanos(micros, now);
  // (But not the time since another statement that has given up.)
  lost.until = std::max(lost.until, now - lost.queue->late_nanos()) + micros * kNanosPerMicro;
  if (std::exchange(lost.put_off, Lost::PutOff::kNone) == Lost::PutOff::kNext) {
    lost.put_off = Lost::PutOff::kDone;
  } else {
    MakeUpForSleep();
  }
  return true;
}

int LostRace::OwedMicros(int micros) {
  if (lost_is_gone || lost.stage != Lost::Stage::kReaders) return 0;
  lost.stage = Lost::Stage::kHas;
  const int64_t owed = OwedNanos(micros, lost.queue->clock().NowNanos());
  lost.until = 0;
  return static_cast<int>(std::min<int64_t>(owed / kNanosPerMicro, INT_MAX - micros));
}

int64_t LostRace::SleepsUntil(WriteQueue::Writer writer) {
  if (lost_is_gone) return 0;
  return lost.stage == Lost::Stage::kSlept && lost.writer == writer ? lost.until : 0;
}

}  // namespace groupcommit
