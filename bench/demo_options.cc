#include "demo_options.h"

#include <sqlite3.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace groupcommit::bench {
namespace {

// Three descriptors each at most: below the usual limit of 1024 for a process.
constexpr int kMaxConnections = 256;
constexpr double kMinSeconds = 0.1;
constexpr double kMaxSeconds = 3600;

[[noreturn]] void Refuse(const std::string& option, const std::string& value,
                         const std::string& allowed) {
  throw UsageError(option + " '" + value + "': " + allowed);
}

std::vector<int> ParseConnections(const std::string& text) {
  const std::string allowed = "expected whole numbers from 1 to " +
                              std::to_string(kMaxConnections) +
                              ", separated by commas, as in 1,8,64";
  std::vector<int> numbers;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data();; ++at) {
    int number = 0;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc() || number < 1 || number > kMaxConnections) {
      Refuse("--connections", text, allowed);
    }
    numbers.push_back(number);
    if (next == end) return numbers;
    if (*next != ',') Refuse("--connections", text, allowed);
    at = next;
  }
}

double ParseSeconds(const std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  const bool whole = end != text.c_str() && *end == '\0';
  if (!whole || !(seconds >= kMinSeconds && seconds <= kMaxSeconds)) {
    Refuse("--seconds", text, "expected a number from 0.1 to 3600");
  }
  return seconds;
}

groupcommit_policy ParsePolicy(const std::string& text) {
  groupcommit_policy policy{};
  char* message = nullptr;
  if (groupcommit_policy_parse(text.c_str(), &policy, &message) != SQLITE_OK) {
    const std::string reason = message != nullptr ? message : "not a policy";
    sqlite3_free(message);
    Refuse("--policy", text, reason);
  }
  return policy;
}

// The arguments one by one: "--name value" and "--name=value" are the same.
class Arguments {
 public:
  explicit Arguments(const std::vector<std::string>& arguments) : arguments_(arguments) {}

  bool Next() {
    if (at_ == arguments_.size()) return false;
    const std::string& argument = arguments_[at_++];
    const size_t equals = argument.find('=');
    has_inline_value_ = argument.starts_with("--") && equals != std::string::npos;
    name_ = has_inline_value_ ? argument.substr(0, equals) : argument;
    value_ = has_inline_value_ ? argument.substr(equals + 1) : "";
    return true;
  }

  const std::string& name() const { return name_; }

  std::string Value(const std::string& what) {
    if (!has_inline_value_) {
      if (at_ == arguments_.size()) throw UsageError(name_ + ": expected " + what + " after it");
      value_ = arguments_[at_++];
    }
    if (value_.empty()) throw UsageError(name_ + ": expected " + what + ", not an empty text");
    return value_;
  }

  bool Flag() const {
    if (has_inline_value_) throw UsageError(name_ + " takes no value");
    return true;
  }

 private:
  const std::vector<std::string>& arguments_;
  size_t at_ = 0;
  std::string name_;
  std::string value_;
  bool has_inline_value_ = false;
};

}  // namespace

DemoOptions ParseDemoOptions(const std::vector<std::string>& arguments) {
  DemoOptions options;
  std::optional<std::vector<int>> connections;
  std::optional<double> seconds;
  Arguments next(arguments);
  while (next.Next()) {
    const std::string& name = next.name();
    if (name == "--dir") {
      options.directory = next.Value("a directory");
    } else if (name == "--connections") {
      connections = ParseConnections(next.Value("a list of numbers such as 1,8,64"));
    } else if (name == "--seconds") {
      seconds = ParseSeconds(next.Value("a number of seconds"));
    } else if (name == "--policy") {
      options.policy = ParsePolicy(next.Value("a policy such as auto"));
    } else if (name == "--json") {
      options.json_path = next.Value("a file name");
    } else if (name == "--advise") {
      options.advise = next.Flag();
    } else if (name == "--keep") {
      options.keep = next.Flag();
    } else if (name == "--help" || name == "-h") {
      options.help = next.Flag();
    } else if (name == "--version") {
      options.version = next.Flag();
    } else {
      throw UsageError("unknown argument '" + name +
                       "': allowed are --advise, --dir, --connections, --seconds, --policy,"
                       " --json, --keep, --help and --version");
    }
  }
  if (options.advise) {
    options.connections = {1, 8, 32};
    options.seconds = 0.5;
  }
  options.connections = connections.value_or(options.connections);
  options.seconds = seconds.value_or(options.seconds);
  return options;
}

const char* DemoHelp() {
  return R"(NAME
    groupcommit-demo - commits per second with and without group commit, on
    your disk

SYNOPSIS
    groupcommit-demo [--advise] [--dir DIR] [--connections LIST] [--seconds N]
                     [--policy POLICY] [--json FILE] [--keep]
    groupcommit-demo --help | --version

DESCRIPTION
    Opens a new SQLite database in WAL mode with PRAGMA synchronous=FULL and
    lets a number of connections, each in a thread of its own, commit 100-byte
    rows as fast as they can, one INSERT a transaction; first through stock
    SQLite, then through groupcommit, on the same disk and one right after the
    other.  It begins with the time that the disk needs for a sync without any
    database, because that is what a commit waits for.

    After each run the file is opened with stock SQLite: every row whose COMMIT
    returned success must be there with its own content, no other row may be,
    and PRAGMA integrity_check must say ok.

    All files are in a new directory that is removed at the end, also after
    Ctrl-C.  With its defaults it takes about half a minute.

OPTIONS
    --advise
        Measures for a few seconds only, 1, 8 and 32 connections for half a
        second each, and says in words what to expect and what to do.
    --dir DIR
        Where to create that directory.  Without it, the first of the current
        directory, $HOME and /var/tmp that can be written to and is on a disk.
        A directory in memory (tmpfs, ramfs) is refused: a sync costs nothing
        there. With --advise it is measured, and told.
    --connections LIST
        Numbers of connections, from 1 to 256, separated by commas.
        Default: 1,2,4,8,16,32,64; with --advise: 1,8,32.
    --seconds N
        Length of each run, 0.1 to 3600.  Default: 2; with --advise: 0.5.
    --policy POLICY
        When groupcommit syncs: auto (default), on_each_flush, group,
        group(max_wait_us=N,max_batch=N), or interval(max_delay_us=N), under
        which COMMIT does not wait for the disk.  See groupcommit.h.
    --json FILE
        Also writes the results to FILE.
    --keep
        Does not remove the directory, and says where it is.
    --help, --version
        Print this text, or the versions of groupcommit and of SQLite, and exit.

OUTPUT
    commits/s     Commits acknowledged within the time, by all connections.
    ratio         groupcommit's divided by stock's.
    syncs/commit  Syncs of the WAL divided by commits, counted below both.
    median, 99%, longest
                  How long a commit took, waiting for the write lock included.
                  ">" marks one that was still waiting when the run ended.
    least/most    Commits of the least-served connection divided by those of
                  the most-served one: 1.00 is fair, 0.00 means that a
                  connection did not commit at all.

EXIT STATUS
    0    All runs were made and every acknowledged row was found.
    1    A row is missing, integrity_check failed, or a run ended with an error.
    2    An argument is wrong, or there is no directory to work in.
    128+N  Ended by signal N.
)";
}

}  // namespace groupcommit::bench
