// The header of a wal-index, as its file shows it.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_WAL_INDEX_H_
#define GROUPCOMMIT_TESTS_SUPPORT_WAL_INDEX_H_

#include <array>
#include <cstdint>
#include <fstream>
#include <string>

namespace groupcommit::testing {

// wal.c: WalIndexHdr, iChange and mxFrame.
constexpr size_t kChangeWord = 2;
constexpr size_t kLastFrameWord = 4;

inline std::array<uint32_t, 12> WalIndexWords(const std::string& database) {
  std::ifstream file(database + "-shm", std::ios::binary);
  std::array<uint32_t, 12> words{};
  file.read(reinterpret_cast<char*>(words.data()), sizeof(words));
  return words;
}

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_WAL_INDEX_H_
