// A VFS over "unix" that writes all that happens to named files into a Record, and syncs as that
// says; no sync reaches the disk.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_RECORDER_H_
#define GROUPCOMMIT_TESTS_LABORATORY_RECORDER_H_

#include "laboratory/record.h"

namespace groupcommit::testing {

inline constexpr char kRecorderVfs[] = "recorder";

// Registers it; `record` must outlive the process's connections. Once in a process.
void RegisterRecorder(Record* record);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_RECORDER_H_
