// LostRace: what the calling thread has to do with write queues.
//
// When SQLite is refused the write lock, its busy handler sleeps, by our xSleep(). No argument of
// that tells such a sleep from any other. So it is told by what came before: the thread was refused
// the lock, and has asked for nothing since. It then sleeps in line, until its turn comes.
//
// It also sees to it that a busy timeout lasts as long as the user asked. SQLite's busy handler
// counts the sleeps that it has asked for, not the time that has passed (main.c:
// sqliteDefaultBusyCallback()). So if a sleep was cut short for a turn that came to nothing, the
// rest of it is slept later.
#ifndef GROUPCOMMIT_LOST_RACE_H_
#define GROUPCOMMIT_LOST_RACE_H_

#include <cstdint>
#include <memory>

#include "write_queue.h"

namespace groupcommit {

class LostRace {
 public:
  // `writer` was refused the lock. `elsewhere` if not another thread of this process has it.
  static void Note(const std::shared_ptr<WriteQueue>& queue, WriteQueue::Writer writer,
                   bool elsewhere);
  // `writer` has the lock, or no longer has it. While it has, the same statement may be refused
  // another one: the rest of the sleeps for this one is then added to those for that.
  static void OnAcquired(WriteQueue::Writer writer);
  static void OnReleased(WriteQueue::Writer writer);
  // `writer` has the lock, and was refused one that readers have: it sleeps outside for that.
  static void NoteReaders(WriteQueue::Writer writer);
  // How much longer than `micros` that sleep has to be, in us.
  static int OwedMicros(int micros);
  // When the sleeps for `writer` would have ended if none had been cut short; 0: there were none.
  static int64_t SleepsUntil(WriteQueue::Writer writer);
  // The next sleep takes no time: it is put off, and added to the one after it.
  static void PutOffSleep();
  // Has a sleep been put off since? If not, the next one is not either.
  static bool HasPutOffSleep();
  // Was the last sleep the first one of a statement, by its length?
  static bool IsFirstSleep();
  // Was the last sleep the final one, after which SQLite's busy handler gives up? It is cut to what
  // is left of the timeout, and no other one is shorter than the one before (main.c:
  // sqliteDefaultBusyCallback()).
  static bool IsFinalSleep();
  // Sleeps now what has been put off. REQUIRES: something has been, or the thread is refused.
  static void MakeUpForSleep();
  // The thread asks for a lock: if it was about to sleep, it is no longer.
  static void Pass();
  // If the calling thread has just been refused a lock, waits for it at most `micros`, and returns
  // true.
  static bool Sleep(int micros);
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOST_RACE_H_
