// What belongs to the process as a whole, and what happens to it in fork().
#ifndef GROUPCOMMIT_PROCESS_H_
#define GROUPCOMMIT_PROCESS_H_

#include <cstdint>

#include "mutex.h"

namespace groupcommit {

// Guards the process-wide lists (VFSes, databases, main files). Held for moments only, and taken
// before any other lock of this library. A thread that forks holds it across the fork, so that the
// child finds the lists whole and the mutex free.
Mutex& ProcessMutex() noexcept;

// Grows by one in each child. What was made in an earlier generation is the parent's: mutexes of it
// may be held by threads that do not exist here, so it must not be touched.
uint64_t ForkGeneration();

// How many processors there are, and which one the calling thread runs on.
constexpr int kUnknownProcessor = -1;
int ProcessorCount();
int CurrentProcessor();

}  // namespace groupcommit

#endif  // GROUPCOMMIT_PROCESS_H_
