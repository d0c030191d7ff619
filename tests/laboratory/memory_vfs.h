// A VFS whose files are bytes in memory, to open thousands of states of a disk. Without shared
// memory: a connection has to set locking_mode=EXCLUSIVE first of all.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_MEMORY_VFS_H_
#define GROUPCOMMIT_TESTS_LABORATORY_MEMORY_VFS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace groupcommit::testing {

inline constexpr char kMemoryVfs[] = "laboratory_memory";

// Registers it. Once in a process.
void RegisterMemoryVfs();

// What this thread's connections find. Null: nothing.
void SetMemoryFiles(std::map<std::string, std::vector<uint8_t>>* files);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_MEMORY_VFS_H_
