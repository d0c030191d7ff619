// The URI parameters flush_policy, max_wait_us and max_batch, on the way that a user's take: xOpen
// with a name that carries them, and a connection with a URI. Either opens, or both are refused
// with SQLITE_MISUSE, as the policy parser says.
//
// The input is text. A line that begins with p, w or b gives one of the three (repeated ones too);
// the rest of the line is its value.
#include <sqlite3.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "flush_policy.h"
#include "fuzz.h"
#include "groupcommit.h"
#include "support/hostile_files.h"

namespace groupcommit {
namespace {

constexpr const char* kVfs = "gc";
constexpr int kFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

struct Parameter {
  const char* name;
  std::string value;
};
using Parameters = std::vector<Parameter>;

Parameters Read(std::string_view text) {
  Parameters parameters;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    // A name ends at its first zero byte.
    const auto add = [&](const char* name) {
      parameters.push_back({name, std::string(line.substr(1, line.find('\0') - 1))});
    };
    if (line.starts_with('p')) add("flush_policy");
    if (line.starts_with('w')) add("max_wait_us");
    if (line.starts_with('b')) add("max_batch");
  }
  return parameters;
}

// What the parser makes of them; the first of several with the same name counts. No value: refused.
std::optional<FlushPolicy> Expected(const Parameters& parameters) {
  PolicyParts parts;
  for (const Parameter& parameter : parameters) {
    auto* part = parameter.name == std::string_view("flush_policy")  ? &parts.flush_policy
                 : parameter.name == std::string_view("max_wait_us") ? &parts.max_wait_us
                                                                     : &parts.max_batch;
    if (!part->has_value()) *part = parameter.value;
  }
  FlushPolicy policy = FlushPolicy::Auto();
  std::string error;
  if (!parts.empty() && !ParsePolicyParts(parts, &policy, &error)) return {};
  return policy;
}

int OpenByName(const std::string& path, const Parameters& parameters) {
  std::vector<const char*> words;
  for (const Parameter& parameter : parameters) {
    words.push_back(parameter.name);
    words.push_back(parameter.value.c_str());
  }
  const std::string journal = path + "-journal";
  const std::string wal = path + "-wal";
  const char* name = sqlite3_create_filename(path.c_str(), journal.c_str(), wal.c_str(),
                                             static_cast<int>(parameters.size()), words.data());
  FUZZ_CHECK(name != nullptr, "out of memory");
  sqlite3_vfs* vfs = sqlite3_vfs_find(kVfs);
  auto* file = static_cast<sqlite3_file*>(std::malloc(static_cast<size_t>(vfs->szOsFile)));
  const int rc = vfs->xOpen(vfs, name, file, kFlags | SQLITE_OPEN_MAIN_DB, nullptr);
  FUZZ_CHECK((file->pMethods != nullptr) == (rc == SQLITE_OK), "methods after result %d", rc);
  if (rc == SQLITE_OK) FUZZ_CHECK(file->pMethods->xClose(file) == SQLITE_OK, "close");
  std::free(file);
  sqlite3_free_filename(name);
  return rc;
}

std::string Escaped(const std::string& value) {
  std::string text;
  for (const char c : value) {
    char escaped[4];
    std::snprintf(escaped, sizeof(escaped), "%%%02x", static_cast<unsigned char>(c));
    text += escaped;
  }
  return text;
}

int OpenByUri(const std::string& path, const Parameters& parameters, std::string* policy) {
  std::string uri = "file:" + path + "?vfs=" + kVfs;
  for (const Parameter& parameter : parameters) {
    uri.append("&").append(parameter.name).append("=").append(Escaped(parameter.value));
  }
  sqlite3* db = nullptr;
  const int rc = sqlite3_open_v2(uri.c_str(), &db, kFlags | SQLITE_OPEN_URI, nullptr);
  if (rc == SQLITE_OK) {
    const auto keep = [](void* to, int, char** values, char**) {
      *static_cast<std::string*>(to) = values[0];
      return 0;
    };
    FUZZ_CHECK(sqlite3_exec(db, "PRAGMA groupcommit_policy", keep, policy, nullptr) == SQLITE_OK,
               "%s", sqlite3_errmsg(db));
  }
  FUZZ_CHECK(sqlite3_close(db) == SQLITE_OK, "close");
  return rc;
}

const std::string& Path() {
  static const testing::MemoryDir dir;
  static const std::string path = dir.File("test.db");
  return path;
}

}  // namespace
}  // namespace groupcommit

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  const int rc = groupcommit_register(groupcommit::kVfs, "unix", 0, nullptr);
  FUZZ_CHECK(rc == SQLITE_OK, "register: %d", rc);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace groupcommit;  // NOLINT(google-build-using-namespace)
  const Parameters parameters = Read({reinterpret_cast<const char*>(data), size});
  const std::optional<FlushPolicy> expected = Expected(parameters);
  const int expected_rc = expected ? SQLITE_OK : SQLITE_MISUSE;
  const int by_name = OpenByName(Path(), parameters);
  FUZZ_CHECK(by_name == expected_rc, "by name: %d instead of %d", by_name, expected_rc);
  std::string policy;
  const int by_uri = OpenByUri(Path(), parameters, &policy);
  FUZZ_CHECK(by_uri == expected_rc, "by URI: %d instead of %d", by_uri, expected_rc);
  if (expected) FUZZ_CHECK(policy == FormatPolicy(*expected), "%s", policy.c_str());
  return 0;
}
