// The crash laboratory: runs a load on storage that keeps a record, then cuts the power at many
// points of the record and has stock SQLite look at what is left.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_LABORATORY_H_
#define GROUPCOMMIT_TESTS_LABORATORY_LABORATORY_H_

#include <cstdint>
#include <string>

#include "laboratory/plan.h"
#include "laboratory/record.h"
#include "laboratory/replay.h"

namespace groupcommit::testing {

class Laboratory {
 public:
  Laboratory();

  // Where the first state that is wrong is left, in a directory of its own. The current directory
  // if it is not set.
  void SetFailureDir(const std::string& dir) { failure_dir_ = dir; }

  // Without the shim: what SQLite itself does not stand up to is no fault of ours.
  void SetStock(bool stock) { stock_ = stock; }

  // Runs the plan of the seed, and tries `states` states. Returns false and explains() if one is
  // wrong.
  bool Run(Flavour flavour, uint64_t seed, int states);

  // One state of a record that was saved. Its files are written into the directory `out`.
  bool Again(const std::string& record, const Cut& cut, const std::string& out);

  const std::string& explains() const { return explains_; }
  int64_t states() const { return states_; }
  int64_t runs() const { return runs_; }
  int64_t events() const { return events_; }

 private:
  std::string TryState(const Replay& replay, const Cut& cut, int databases);
  bool IsPowerCut(const Cut& cut) const;
  std::map<std::string, Bytes> StateOf(const Replay& replay, const Cut& cut) const;
  std::string LookAt(std::map<std::string, Bytes> disk, const Replay& replay, const Cut& cut,
                     int databases);
  std::string LookAtFiles(const std::map<std::string, Bytes>& disk, const Replay& replay,
                          const Cut& cut, int databases);
  void Explain(const Plan& plan, const std::string& wrong, const Replay* replay, const Cut& cut);

  Record record_;
  std::string failure_dir_ = ".";
  bool stock_ = false;
  std::string explains_;
  int64_t states_ = 0;
  int64_t runs_ = 0;
  int64_t events_ = 0;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_LABORATORY_H_
