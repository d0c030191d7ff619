#include "writer_queue.h"

#include <cerrno>
#include <system_error>

#include "sqlite_engine.h"

namespace groupcommit::bench {
namespace {

class QueuedCommitter final : public Committer {
 public:
  QueuedCommitter(WriterQueue* queue, WriterQueue::Place* place) : queue_(queue), place_(place) {}

  int Commit(const Row& row) override { return queue_->Commit(row, place_); }
  std::string error() const override { return place_->error(); }

 private:
  WriterQueue* const queue_;
  WriterQueue::Place* const place_;
};

class WriterQueueEngine final : public SqliteEngine {
 public:
  explicit WriterQueueEngine(const WorkloadOptions& options)
      : SqliteEngine(options), queue_(options.mix, Connect()) {}

  std::unique_ptr<Committer> NewCommitter(int) override {
    places_.push_back(std::make_unique<WriterQueue::Place>());
    return std::make_unique<QueuedCommitter>(&queue_, places_.back().get());
  }

 private:
  std::vector<std::unique_ptr<WriterQueue::Place>> places_;
  WriterQueue queue_;  // Below the places, which it may use to its end.
};

}  // namespace

Semaphore::Semaphore() {
  if (sem_init(&semaphore_, 0, 0) != 0) {
    throw std::system_error(errno, std::generic_category(), "sem_init");
  }
}

void Semaphore::Wait() {
  while (sem_wait(&semaphore_) != 0) {
    // Interrupted by a signal.
  }
}

WriterQueue::WriterQueue(Mix mix, Connection db)
    : db_(std::move(db)), transaction_(mix, db_.get()), writer_([this] { Write(); }) {}

WriterQueue::~WriterQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  arrival_.notify_one();
  writer_.join();
}

int WriterQueue::Commit(const Row& row, Place* place) {
  place->row_ = &row;
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    queued_.push_back(place);
    wake = idle_;
    idle_ = false;
  }
  if (wake) arrival_.notify_one();
  place->done_.Wait();
  return place->result_;
}

void WriterQueue::Write() {
  std::vector<Place*> batch;
  std::vector<const Row*> rows;
  while (Take(&batch)) {
    rows.clear();
    for (const Place* place : batch) rows.push_back(place->row_);
    const int rc = transaction_.CommitAll(rows);
    for (Place* place : batch) {
      if (rc != SQLITE_OK) place->error_ = transaction_.error();
      place->result_ = rc;
      place->done_.Post();
    }
  }
}

// Waits until something is queued, and takes all of it. False at the end.
bool WriterQueue::Take(std::vector<Place*>* batch) {
  batch->clear();
  std::unique_lock lock(mutex_);
  while (queued_.empty() && !stop_) {
    idle_ = true;
    arrival_.wait(lock);
  }
  idle_ = false;
  batch->swap(queued_);
  return !batch->empty();
}

std::unique_ptr<Engine> NewWriterQueueEngine(const WorkloadOptions& options) {
  return std::make_unique<WriterQueueEngine>(options);
}

}  // namespace groupcommit::bench
