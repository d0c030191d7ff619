// LostRace: what the calling thread has to do with write queues.
//
// It tells SQLite's sleep for the write lock from any other, as there is no argument by which
// xSleep could: the thread was refused the lock, and has asked for nothing since. And it sees to it
// that a busy timeout lasts as long as the user asked. SQLite's busy handler counts what it has
// asked xSleep for, and not the time (main.c: sqliteDefaultBusyCallback()); so what a sleep was cut
// short by, since its turn had come, is slept later if that was in vain.
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
  // `writer` has the lock, or no longer has it. Meanwhile the same statement may be refused another
  // one: then what was slept too little for this one is added to the sleep for that.
  static void OnAcquired(WriteQueue::Writer writer);
  static void OnReleased(WriteQueue::Writer writer);
  // It has been refused one that readers have: for that it sleeps outside. How much longer than
  // `micros`, in us?
  static void NoteReaders(WriteQueue::Writer writer);
  static int OwedMicros(int micros);
  // When the sleeps for `writer` would have ended that were cut short for its turn; else 0.
  static int64_t SleepsUntil(WriteQueue::Writer writer);
  // The next sleep takes no time, but is added to the one after it.
  static void PutOffSleep();
  // Has there been such a sleep?
  static bool HasPutOffSleep();
  // Was the last one the first of a statement, by its length?
  static bool IsFirstSleep();
  // Was it SQLite's last one before it gives up? That is cut to what is left of the busy timeout:
  // no other one is shorter than the one before (main.c: sqliteDefaultBusyCallback()).
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
