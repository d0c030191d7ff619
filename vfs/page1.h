// Page1: does a transaction change more of the first page of a database than sizes?
//
// A commit that a failed sync takes back must not have told anybody of a new schema: other
// connections would keep it in their caches (MayDefer()). All that tells of one is on page 1.
#ifndef GROUPCOMMIT_PAGE1_H_
#define GROUPCOMMIT_PAGE1_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "wal_format.h"

namespace groupcommit {

class Page1 {
 public:
  // It has been read, by a transaction that goes by what it says.
  void OnRead(const void* page, int size) {
    if (size == size_ && !SameSchemaCookie(bytes_.get(), static_cast<const uint8_t*>(page))) {
      schema_is_new_ = true;
    }
    if (size != size_) {
      bytes_.reset(new (std::nothrow) uint8_t[static_cast<size_t>(size)]);
      size_ = bytes_ != nullptr ? size : 0;
    }
    is_known_ = bytes_ != nullptr;
    if (is_known_) std::memcpy(bytes_.get(), page, static_cast<size_t>(size));
  }

  // SQLite takes a snapshot, in which it may read the page.
  void OnSnapshot() { schema_is_new_ = false; }
  // A write transaction begins, ...
  void OnBegin() { schema_may_change_ = false; }
  // ... and writes the page.
  void OnWrite(const void* page, int size) {
    const auto* bytes = static_cast<const uint8_t*>(page);
    is_known_ = is_known_ && size == size_;
    if (!is_known_ || !SamePage1ButSizes(bytes_.get(), bytes, size)) schema_may_change_ = true;
    if (is_known_) std::memcpy(bytes_.get(), bytes, static_cast<size_t>(size));
  }
  // SQLite's page cache may have lost it: it will read it again.
  void Forget() { is_known_ = false; }

  // When in doubt: yes.
  bool schema_may_change() const { return schema_may_change_; }

  // Has somebody else changed the schema before this snapshot? Then a statement that was prepared
  // before that ends here, and SQLite prepares it anew (vdbe.c: OP_Transaction).
  bool schema_is_new() const { return schema_is_new_; }

 private:
  // As SQLite's page cache has it: the last one that was read or written.
  std::unique_ptr<uint8_t[]> bytes_;
  int size_ = 0;
  bool is_known_ = false;
  bool schema_may_change_ = false;
  bool schema_is_new_ = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_PAGE1_H_
