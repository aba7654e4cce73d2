#include "src/checkpoint/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "serrate/error.h"
#include "src/checkpoint/exact_cover.h"
#include "src/checkpoint/folder.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormatVersion = 2;
constexpr int kVersionWithDataTypes = 3;  // where a table is not of float32
constexpr std::int64_t kMostBytes = std::int64_t{256} << 20;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMostRanks = 1 << 20;

// The checksum is the last field, and covers all bytes before this.
constexpr std::string_view kBeforeChecksum = ",\n  \"checksum\": \"";
constexpr std::string_view kAfterChecksum = "\"\n}\n";
constexpr std::size_t kDigestDigits = 32;

constexpr std::size_t kChecksumDigits = 16;
std::string checksum_of(std::string_view text) {
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

Json json_of(const ManifestFile& file) {
  Json shards = Json::array();
  for (const auto& [table, part] : file.shards) {
    shards.push_back({{"table", table},
                      {"rows", {part.row_begin, part.row_end}},
                      {"columns", {part.column_begin, part.column_end}}});
  }
  return {{"bytes", file.bytes}, {"digest", file.digest}, {"shards", shards}};
}

std::pair<std::int64_t, std::int64_t> interval(const JsonField& field) {
  const std::vector<JsonField> ends = field.array();
  if (ends.size() != 2) field.fail("must be a begin and an end");
  const std::int64_t begin = ends[0].int64(0, kMost);
  return {begin, ends[1].int64(begin, kMost)};
}

ManifestFile file_of(const JsonField& json) {
  ManifestFile file{.bytes = json.at("bytes").int64(0, kMost),
                    .digest = json.at("digest").string(),
                    .shards = {}};
  const bool hexadecimal = file.digest.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (file.digest.size() != kDigestDigits || !hexadecimal) {
    json.at("digest").fail("must be 32 hexadecimal digits");
  }
  for (const JsonField& shard : json.at("shards").array()) {
    shard.allow_only({"table", "rows", "columns"});
    ManifestShard s{.table = shard.at("table").string(), .part = {}};
    std::tie(s.part.row_begin, s.part.row_end) = interval(shard.at("rows"));
    std::tie(s.part.column_begin, s.part.column_end) = interval(shard.at("columns"));
    file.shards.push_back(std::move(s));
  }
  return file;
}

/// Adds a name to those that a list has had; one that it had is an error.
void take_name(const JsonField& field, std::set<std::string>& names) {
  if (!names.insert(field.string()).second) field.fail("appears twice");
}

/// rows x columns values are to fit in memory, so their bytes do in 63 bits.
void check_size(const JsonField& json, std::int64_t rows, std::int64_t columns) {
  const std::int64_t most = kMost / static_cast<std::int64_t>(sizeof(float));
  if (columns > 0 && rows > most / columns) json.fail("has more values than memory");
}

std::vector<ManifestTable> tables_of(const JsonField& json, std::int64_t version) {
  std::vector<ManifestTable> tables;
  std::set<std::string> names;
  for (const JsonField& field : json.array()) {
    const bool has_type = version == kVersionWithDataTypes;
    if (has_type) {
      field.allow_only({"name", "num_rows", "dim", "data_type"});
    } else {
      field.allow_only({"name", "num_rows", "dim"});
    }
    take_name(field.at("name"), names);
    tables.push_back({field.at("name").string(), field.at("num_rows").int64(1, kMost),
                      field.at("dim").int64(1, kMost)});
    if (has_type) {
      tables.back().data_type = field.at("data_type").string_as(data_type_from_string);
    }
    check_size(field, tables.back().num_rows, tables.back().dim);
  }
  return tables;
}

std::vector<ManifestTensor> tensors_of(const JsonField& json) {
  std::vector<ManifestTensor> tensors;
  std::set<std::string> names;
  for (const JsonField& field : json.array()) {
    field.allow_only({"name", "rows", "columns"});
    take_name(field.at("name"), names);
    tensors.push_back({field.at("name").string(), field.at("rows").int64(0, kMost),
                       field.at("columns").int64(0, kMost)});
    check_size(field, tensors.back().rows, tensors.back().columns);
  }
  return tensors;
}

void check_checksum(const std::string& text, const std::string& document) {
  const std::size_t tail = kBeforeChecksum.size() + kChecksumDigits + kAfterChecksum.size();
  const bool whole = text.size() > tail && text.ends_with(kAfterChecksum);
  const std::string_view last = std::string_view(text).substr(whole ? text.size() - tail : 0);
  if (!whole || !last.starts_with(kBeforeChecksum)) {
    // Those of version 1 had none; tell them from damage.
    if (text.find("\"version\": 1,") != std::string::npos) {
      throw usage_error(fmt::format(
          "{}: is of checkpoint format 1, of an earlier Serrate (train again)", document));
    }
    throw usage_error(
        fmt::format("{}: does not end with its checksum (it was cut or changed)", document));
  }
  const std::string_view body = std::string_view(text).substr(0, text.size() - tail);
  const std::string_view found = last.substr(kBeforeChecksum.size(), kChecksumDigits);
  if (const std::string expected = checksum_of(body); found != expected) {
    throw usage_error(
        fmt::format("{}: its checksum is {}, but that of its content {} (it was "
                    "damaged or changed)",
                    document, found, expected));
  }
}

/// The shards of all files cover every table exactly once.
void check_cover(const Manifest& manifest, const std::string& document) {
  std::map<std::string, std::vector<Rectangle>> parts;
  for (const ManifestTable& table : manifest.tables) parts[table.name];
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank) {
    for (const ManifestShard& shard : manifest.files[rank].shards) {
      const auto table = parts.find(shard.table);
      if (table == parts.end()) {
        throw usage_error(fmt::format("{}: files[{}] has a shard of the unknown table \"{}\"",
                                      document, rank, shard.table));
      }
      table->second.push_back(shard.part);
    }
  }
  for (const ManifestTable& table : manifest.tables) {
    const std::string problem = find_cover_problem(parts[table.name], table.num_rows, table.dim);
    if (problem.empty()) continue;
    throw usage_error(fmt::format("{}: table \"{}\": {}", document, table.name, problem));
  }
}

}  // namespace

Rectangle overlap(const Rectangle& a, const Rectangle& b) {
  return {.row_begin = std::max(a.row_begin, b.row_begin),
          .row_end = std::min(a.row_end, b.row_end),
          .column_begin = std::max(a.column_begin, b.column_begin),
          .column_end = std::min(a.column_end, b.column_end)};
}

bool is_empty(const Rectangle& r) {
  return r.row_begin >= r.row_end || r.column_begin >= r.column_end;
}

const ManifestTable* Manifest::find_table(const std::string& name) const {
  const auto found = std::ranges::find(tables, name, &ManifestTable::name);
  return found == tables.end() ? nullptr : &*found;
}

std::vector<MatrixKind> matrix_kinds(SparseOptimizer optimizer) {
  switch (optimizer) {
    case SparseOptimizer::kSgd:
      return {{"weights", false}};
    case SparseOptimizer::kAdagrad:
      return {{"weights", false}, {"state", false}};
    case SparseOptimizer::kRowWiseAdagrad:
      return {{"weights", false}, {"state", true}};
    case SparseOptimizer::kAdam:
      return {{"weights", false}, {"state", false}, {"second_moment", false}};
  }
  throw Error("unknown optimizer");
}

std::string rank_file_name(std::size_t rank) {
  return fmt::format("rank{}.h5", rank);
}

std::string manifest_file_to_json(const ManifestFile& file) {
  return json_of(file).dump();
}

ManifestFile manifest_file_from_json(const std::string& text) {
  const nlohmann::json json = parse_json(text, "a file of a checkpoint");
  return file_of(JsonField(json, "a file of a checkpoint"));
}

std::string manifest_to_json(const Manifest& manifest) {
  const bool has_types = std::ranges::any_of(
      manifest.tables, [](const auto& t) { return t.data_type != DataType::kFloat32; });
  Json json{{"format", "serrate-checkpoint"},
            {"version", has_types ? kVersionWithDataTypes : kFormatVersion},
            {"step", manifest.step},
            {"optimizer", to_string(manifest.optimizer)},
            {"tables", Json::array()},
            {"tensors", Json::array()},
            {"integers", manifest.integers},
            {"texts", manifest.texts},
            {"files", Json::array()}};
  // An empty map is null otherwise.
  if (manifest.integers.empty()) json["integers"] = Json::object();
  if (manifest.texts.empty()) json["texts"] = Json::object();
  for (const ManifestTable& t : manifest.tables) {
    json["tables"].push_back({{"name", t.name}, {"num_rows", t.num_rows}, {"dim", t.dim}});
    if (has_types) json["tables"].back()["data_type"] = to_string(t.data_type);
  }
  for (const ManifestTensor& t : manifest.tensors) {
    json["tensors"].push_back({{"name", t.name}, {"rows", t.rows}, {"columns", t.columns}});
  }
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank) {
    Json file{{"name", rank_file_name(rank)}};
    file.update(json_of(manifest.files[rank]));
    json["files"].push_back(std::move(file));
  }
  std::string text;
  try {
    text = json.dump(2);
  } catch (const nlohmann::json::exception&) {
    throw usage_error("a name or a text of the checkpoint is not UTF-8");
  }
  text.resize(text.size() - std::string_view("\n}").size());
  const std::string checksum = checksum_of(text);
  return text.append(kBeforeChecksum).append(checksum).append(kAfterChecksum);
}

Manifest manifest_from_json(const std::string& text, const std::string& document) {
  check_checksum(text, document);
  const nlohmann::json parsed = parse_json(text, document);
  const JsonField json(parsed, document);
  if (json.at("format").string() != "serrate-checkpoint") {
    json.at("format").fail("must be \"serrate-checkpoint\"");
  }
  const std::int64_t version = json.at("version").int64(kFormatVersion, kVersionWithDataTypes);
  json.allow_only({"format", "version", "step", "optimizer", "tables", "tensors", "integers",
                   "texts", "files", "checksum"});
  Manifest manifest;
  manifest.step = json.at("step").int64(0, kMost);
  manifest.optimizer = json.at("optimizer").string_as(sparse_optimizer_from_string);
  manifest.tables = tables_of(json.at("tables"), version);
  manifest.tensors = tensors_of(json.at("tensors"));
  const JsonField integers = json.at("integers"), texts = json.at("texts");
  for (const std::string& name : integers.names()) {
    manifest.integers[name] = integers.at(name).int64();
  }
  for (const std::string& name : texts.names()) manifest.texts[name] = texts.at(name).string();
  const std::vector<JsonField> files = json.at("files").array();
  if (files.empty() || std::ssize(files) > kMostRanks) {
    json.at("files").fail("must be 1 to 1048576 files");
  }
  for (const JsonField& file : files) {
    file.allow_only({"name", "bytes", "digest", "shards"});
    if (const std::string name = rank_file_name(manifest.files.size());
        file.at("name").string() != name) {
      file.at("name").fail(fmt::format("must be \"{}\"", name));
    }
    manifest.files.push_back(file_of(file));
  }
  check_cover(manifest, document);
  return manifest;
}

std::string read_manifest_text(const std::string& checkpoint) {
  const std::string path = fmt::format("{}/{}", checkpoint, kManifestName);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) {
    if (errno != ENOENT) fail_read(path, errno);
    throw usage_error(fmt::format("{} is missing (the checkpoint is not complete)", path));
  }
  const std::unique_ptr<const int, void (*)(const int*)> closer(&descriptor,
                                                                [](const int* d) { ::close(*d); });
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) fail_read(path, errno);
  if (!S_ISREG(status.st_mode)) throw usage_error(fmt::format("{} is not a plain file", path));
  if (status.st_size > kMostBytes) {
    throw usage_error(fmt::format("{} has {} bytes (a manifest has at most {})", path,
                                  status.st_size, kMostBytes));
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t count = ::read(descriptor, text.data() + size, text.size() - size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_read(path, errno);
    if (count == 0) break;  // it was cut meanwhile; the checksum tells
    size += static_cast<std::size_t>(count);
  }
  text.resize(size);
  return text;
}

Manifest manifest_of_folder(const std::string& text, const std::string& checkpoint,
                            std::int64_t step) {
  const std::string document = fmt::format("{}/{}", checkpoint, kManifestName);
  Manifest manifest = manifest_from_json(text, document);
  if (manifest.step != step) {
    throw usage_error(
        fmt::format("{}: step: is {} in the folder of step {}", document, manifest.step, step));
  }
  return manifest;
}

Manifest read_manifest(const std::string& checkpoint, std::int64_t step) {
  return manifest_of_folder(read_manifest_text(checkpoint), checkpoint, step);
}

}  // namespace serrate
