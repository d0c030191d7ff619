#include "laboratory/plan.h"

#include <sstream>

namespace groupcommit::testing {

const char* NameOf(Flavour flavour) {
  static constexpr const char* kNames[kFlavours] = {
      "plain", "mixed", "failures", "reopening", "attached", "processes",
      "crowd", "large", "later",    "killed",    "guests"};
  return kNames[static_cast<int>(flavour)];
}

std::string DrawPolicy(Random& random, bool interval) {
  if (interval && random.OneIn(2)) {
    return "interval(max_delay_us=" + std::to_string(random.Below(3000)) + ")";
  }
  switch (random.Below(6)) {
    case 0:
      return "on_each_flush";
    case 1:
    case 2:
      return "group(max_wait_us=" + std::to_string(random.Below(500)) +
             ",max_batch=" + std::to_string(random.Between(1, 16)) + ")";
    default:
      return "auto";
  }
}

Plan DrawPlan(Flavour flavour, uint64_t seed) {
  Random random(Mix(seed) ^ Mix(static_cast<uint64_t>(flavour) + 1));
  Plan plan{.seed = seed, .flavour = flavour};
  plan.page_size = 512 << random.Below(5);
  plan.pad_rows = random.Between(4, 40);
  plan.writers = random.OneIn(4) ? 1 : random.Between(2, 8);
  plan.commits = random.Between(50, 120);
  plan.phases = random.OneIn(3) ? 2 : 1;
  plan.autocheckpoint = random.OneIn(4) ? 1000 : random.Between(5, 40);
  plan.checkpointer = random.OneIn(2);
  plan.readers = random.Below(3);
  plan.savepoints = random.OneIn(2);
  plan.spills = !plan.savepoints && random.OneIn(2);
  plan.schema_changes = random.OneIn(4);
  plan.policy_changes = random.OneIn(4);
  plan.polite = random.OneIn(3);
  plan.mmap_size = random.OneIn(4) ? 1 << 20 : 0;
  plan.policy = DrawPolicy(random, false);
  plan.sync_micros = random.Between(0, 300);
  switch (flavour) {
    case Flavour::kPlain:
      plan.readers = random.Between(1, 2);
      break;
    case Flavour::kMixed:
      plan.normal = true;
      plan.off = random.OneIn(2);
      break;
    case Flavour::kFailures:
      plan.log_failures = random.Between(10, 150);
      plan.normal = random.OneIn(3);
      plan.schema_changes = random.OneIn(2);
      break;
    case Flavour::kReopening:
      plan.phases = random.Between(3, 6);
      plan.normal = !random.OneIn(4);
      plan.readers = random.Between(1, 2);
      break;
    case Flavour::kAttached:
      plan.databases = 2;
      plan.normal = random.OneIn(4);
      plan.pad_rows = random.Between(4, 16);
      plan.log_failures = random.OneIn(3) ? random.Between(10, 50) : 0;
      break;
    case Flavour::kProcesses:
      plan.stock_processes = random.OneIn(3) ? 0 : 1;
      plan.shim_processes = random.Between(plan.stock_processes == 0 ? 2 : 1, 2);
      plan.writers = random.Between(plan.shim_processes + plan.stock_processes, 8);
      plan.normal = random.OneIn(2);
      // (What stock SQLite commits on top of a hole before that is closed may be lost.)
      if (plan.stock_processes == 0 && random.OneIn(2)) {
        plan.log_failures = random.Between(10, 150);
        plan.normal = false;
      }
      break;
    case Flavour::kCrowd:
      plan.writers = random.Between(16, 64);
      plan.commits = random.Between(100, 300);
      plan.polite = false;
      break;
    case Flavour::kLarge:
      plan.page_size = 512 << random.Below(8);
      plan.pad_rows = plan.page_size <= 1024 ? 200 : random.Between(4, 12);
      plan.commits = random.Between(40, 60);
      plan.savepoints = random.OneIn(4);
      plan.spills = !plan.savepoints;
      break;
    case Flavour::kLater:
      plan.normal = true;
      plan.off = random.OneIn(6);
      plan.policy_changes = random.OneIn(2);
      plan.log_failures = random.OneIn(3) ? random.Between(10, 100) : 0;
      plan.readers = random.Between(1, 2);
      plan.phases = random.Between(1, 3);
      break;
    case Flavour::kKilled:
      plan.shim_processes = random.Between(2, 3);
      plan.stock_processes = random.OneIn(3) ? 1 : 0;
      plan.writers = random.Between(plan.shim_processes + plan.stock_processes, 8);
      plan.normal = random.OneIn(2);
      plan.deaths = true;
      break;
    case Flavour::kGuests:
      plan.guests = random.Between(1, 3);
      plan.log_failures = random.Between(10, 150);
      // (All FULL. The sync of a guest's checkpoint may fail, and lose a commit without a sync; its
      // next one copies that, as with SQLite alone.)
      plan.normal = false;
      plan.dying_guests = random.OneIn(2) ? random.Between(1, 3) : 0;
      break;
  }
  plan.barriers = flavour == Flavour::kLater || random.OneIn(2);
  plan.interval = random.OneIn(flavour == Flavour::kLater ? 2 : 8);
  // (What a failed sync in the background was to make durable, a checkpoint of another process may
  // copy half of.)
  if (flavour == Flavour::kGuests) plan.barriers = plan.interval = false;
  if (plan.interval) plan.policy = DrawPolicy(random, true);
  const bool may_be_full = flavour == Flavour::kFailures || flavour == Flavour::kLarge;
  if (may_be_full && random.OneIn(2)) plan.write_failures = random.Between(2, 20);
  if (plan.off) {
    // A checkpoint or a restart by a connection with synchronous=OFF syncs nothing.
    plan.phases = 1;
    plan.autocheckpoint = 0;
    plan.checkpointer = false;
  }
  return plan;
}

std::string ToText(const Plan& plan) {
  std::ostringstream out;
  out << NameOf(plan.flavour) << ", seed " << plan.seed << ": " << plan.shim_processes << "+"
      << plan.stock_processes << " processes, " << plan.writers << " writers, " << plan.commits
      << " commits, " << plan.databases << " databases, " << plan.phases << " phases, page size "
      << plan.page_size << ", " << plan.pad_rows << " pads, policy " << plan.policy
      << (plan.policy_changes ? " and others" : "") << (plan.interval ? ", interval too" : "")
      << (plan.normal ? ", NORMAL too" : "") << (plan.barriers ? ", barriers" : "")
      << (plan.off ? ", OFF too" : "") << ", autocheckpoint " << plan.autocheckpoint
      << (plan.checkpointer ? ", checkpointer" : "") << ", " << plan.readers << " readers"
      << (plan.savepoints ? ", savepoints" : "") << (plan.spills ? ", spills" : "")
      << (plan.schema_changes ? ", schema changes" : "") << (plan.polite ? ", busy timeout" : "")
      << (plan.mmap_size > 0 ? ", mmap" : "") << ", syncs up to " << plan.sync_micros << " us, "
      << plan.log_failures << " of 1000 fail, and " << plan.write_failures << " writes, "
      << plan.guests << " guests, " << plan.dying_guests << " times as many die"
      << (plan.deaths ? ", processes die" : "");
  return out.str();
}

}  // namespace groupcommit::testing
