#include "grid.h"

#include <string_view>

#include "rocksdb_engine.h"

namespace groupcommit::bench {
namespace {

// NORMAL does not sync at a commit: what a commit costs without durability, the ceiling.
const std::vector<Variant>& Variants() {
  constexpr EngineFactory kOwn = NewConnectionEngine;
  static const std::vector<Variant> variants = {
      {"stock_full", kOwn, VerifyDatabase, false, "", "FULL"},
      {"stock_normal", kOwn, VerifyDatabase, false, "", "NORMAL"},
      {"on_each_flush", kOwn, VerifyDatabase, true, "flush_policy=on_each_flush", "FULL"},
      {"group", kOwn, VerifyDatabase, true, "flush_policy=group", "FULL"},
      {"auto", kOwn, VerifyDatabase, true, "flush_policy=auto", "FULL"},
      {"writer_queue", NewWriterQueueEngine, VerifyDatabase, false, "", "FULL"},
#ifdef GROUPCOMMIT_BENCH_ROCKSDB
      {"rocksdb", NewRocksDbEngine, VerifyRocksDb, false, "", "", true},
#endif
  };
  return variants;
}

const std::vector<Variant>& WindowVariants() {
  const auto window = [](const char* name, const char* uri_parameters) {
    return Variant{name, NewConnectionEngine, VerifyDatabase, true, uri_parameters, "FULL", false,
                   true};
  };
  static const std::vector<Variant> variants = {
      {"auto", NewConnectionEngine, VerifyDatabase, true, "flush_policy=auto", "FULL"},
      window("window_0us", "flush_policy=group&max_wait_us=0"),
      window("window_50us", "flush_policy=group&max_wait_us=50"),
      window("window_100us", "flush_policy=group&max_wait_us=100"),
      window("window_200us", "flush_policy=group&max_wait_us=200"),
      window("window_500us", "flush_policy=group&max_wait_us=500"),
      window("window_1000us", "flush_policy=group&max_wait_us=1000"),
      window("window_3000us", "flush_policy=group&max_wait_us=3000"),
  };
  return variants;
}

using Names = std::vector<std::string_view>;
using Numbers = std::vector<int>;

// Every combination of these; no names mean all.
struct Block {
  std::vector<Mix> mixes;
  Names storages;
  Names variants;
  Numbers connections;
};

bool Contains(const Names& names, std::string_view name) {
  if (names.empty()) return true;
  for (const std::string_view candidate : names) {
    if (candidate == name) return true;
  }
  return false;
}

bool IsPossible(Mix mix, const Storage& storage, const Variant& variant) {
  return !variant.only_inserts || (mix == Mix::kInsert && storage.delay.count() == 0);
}

void Append(const Block& block, const std::vector<Variant>& variants, std::vector<Point>* points) {
  for (const Mix mix : block.mixes) {
    for (const Storage& storage : Storages()) {
      if (!Contains(block.storages, storage.name)) continue;
      for (const Variant& variant : variants) {
        if (!Contains(block.variants, variant.name)) continue;
        if (!IsPossible(mix, storage, variant)) continue;
        for (const int connections : block.connections) {
          points->push_back({mix, &storage, &variant, connections});
        }
      }
    }
  }
}

std::vector<Block> BlocksOf(Extent extent) {
  const Numbers every = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  const Names rivals = {"stock_full", "auto", "writer_queue"};
  const std::vector<Mix> all(std::begin(kAllMixes), std::end(kAllMixes));
  const std::vector<Mix> writes = {Mix::kTwoTables, Mix::kBlob, Mix::kHotRow};
  const std::vector<Mix> quick = {Mix::kAppend, Mix::kTwoTables, Mix::kBlob, Mix::kHotRow};
  const std::vector<Mix> paced = {Mix::kUneven, Mix::kBursts};
  const std::vector<Mix> reads = {Mix::kReaders, Mix::kReadersPaced, Mix::kReadersOfNewest};
  switch (extent) {
    case Extent::kQuick:
      return {{{Mix::kInsert}, {"disk"}, {}, {1, 8}},
              {{Mix::kInsert}, {"plus_1ms"}, rivals, {8}},
              {quick, {"disk"}, rivals, {16}},
              {paced, {"changing"}, rivals, {8}},
              {reads, {"disk"}, rivals, {32}}};
    case Extent::kDefault:
      return {{{Mix::kInsert}, {"disk", "plus_1ms"}, {"stock_full", "auto", "writer_queue"}, every},
              {{Mix::kInsert},
               {"disk", "plus_1ms"},
               {"stock_normal", "on_each_flush", "group", "rocksdb"},
               {1, 4, 16, 64, 256}},
              {{Mix::kAppend}, {"disk"}, rivals, {1, 4, 16, 64, 256}},
              {{Mix::kInsert}, {"plus_0.5ms", "plus_5ms", "plus_20ms"}, rivals, {1, 8, 64}},
              {{Mix::kInsert}, {"plus_1ms_serial"}, rivals, {16, 64}},
              {writes, {"disk"}, rivals, {1, 8, 64}},
              {reads, {"disk"}, rivals, {32, 256}}};
    case Extent::kWindows:
      return {{{Mix::kInsert}, {"disk", "plus_1ms"}, {}, {2, 4, 16, 64}},
              {{Mix::kInsert}, {"plus_5ms", "changing"}, {}, {16}},
              {{Mix::kInsert}, {"plus_1ms_serial"}, {}, {16, 64}},
              {paced, {"disk", "plus_1ms", "plus_1ms_serial"}, {}, {16}}};
    case Extent::kAll:
      return {{all, {}, {}, every}};
  }
  return {};
}

}  // namespace

const std::vector<Storage>& Storages() {
  static const std::vector<Storage> storages = {
      {"disk", std::chrono::microseconds{0}},
      {"plus_0.5ms", std::chrono::microseconds{500}},
      {"plus_1ms", std::chrono::milliseconds{1}},
      {"plus_5ms", std::chrono::milliseconds{5}},
      {"plus_20ms", std::chrono::milliseconds{20}},
      {"plus_1ms_serial", std::chrono::milliseconds{1}, DelayVfs::Kind::kSerial},
      {"changing", std::chrono::milliseconds{2}, DelayVfs::Kind::kChanging}};
  return storages;
}

std::vector<Point> PointsOf(Extent extent) {
  std::vector<Point> points;
  const auto& variants = extent == Extent::kWindows ? WindowVariants() : Variants();
  for (const Block& block : BlocksOf(extent)) Append(block, variants, &points);
  return points;
}

std::string NameOf(const Point& point) {
  return std::string("commit/") + NameOf(point.mix) + "/" + point.storage->name + "/" +
         point.variant->name + "/connections:" + std::to_string(point.connections);
}

}  // namespace groupcommit::bench
