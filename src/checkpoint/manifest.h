#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "serrate/embedding_table.h"

namespace serrate {

/// Rows x columns of a table.
struct Rectangle {
  std::int64_t row_begin = 0, row_end = 0;
  std::int64_t column_begin = 0, column_end = 0;
  std::int64_t num_rows() const { return row_end - row_begin; }
  std::int64_t num_columns() const { return column_end - column_begin; }
  friend bool operator==(const Rectangle&, const Rectangle&) = default;
};

/// What both have; empty (no rows or no columns, or fewer) where they do not meet.
Rectangle overlap(const Rectangle& a, const Rectangle& b);
bool is_empty(const Rectangle& r);

struct ManifestShard {
  std::string table;
  Rectangle part;
};

/// A file of a checkpoint.
struct ManifestFile {
  std::int64_t bytes = 0;
  std::string digest;  // of its content, 32 hexadecimal digits
  std::vector<ManifestShard> shards;
};

struct ManifestTable {
  std::string name;
  std::int64_t num_rows = 0;
  std::int64_t dim = 0;
  DataType data_type = DataType::kFloat32;  // of the weights
};

struct ManifestTensor {
  std::string name;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
};

/// MANIFEST.json of a checkpoint (docs/checkpoint_format.md).
struct Manifest {
  std::int64_t step = 0;
  SparseOptimizer optimizer = SparseOptimizer::kSgd;
  std::vector<ManifestTable> tables;
  std::vector<ManifestTensor> tensors;  // all in the file of rank 0
  std::map<std::string, std::int64_t> integers;
  std::map<std::string, std::string> texts;
  std::vector<ManifestFile> files;  // of rank r at [r]

  const ManifestTable* find_table(const std::string& name) const;
};

/// A matrix that is kept of every shard of a table.
struct MatrixKind {
  const char* name;  // in files
  bool one_a_row;    // [rows, 1], the same on all shards of a row; otherwise [rows, columns]
};
/// The weights, then the state of the optimizer.
std::vector<MatrixKind> matrix_kinds(SparseOptimizer optimizer);

/// "rank0.h5"
std::string rank_file_name(std::size_t rank);
inline constexpr const char* kManifestName = "MANIFEST.json";

/// The text of the file, its checksum included.
std::string manifest_to_json(const Manifest& manifest);
/// Throws Error (usage), beginning with `document`, unless the checksum holds, nothing is missing,
/// unknown or out of its range, and the shards of all files cover each table exactly once.
Manifest manifest_from_json(const std::string& text, const std::string& document);
/// The text of `checkpoint`/MANIFEST.json, not checked yet. Error (usage) when it is missing, is no
/// plain file or is larger than any of ours; as fail_read() when it cannot be read.
std::string read_manifest_text(const std::string& checkpoint);
/// As manifest_from_json(), of the text of `checkpoint`/MANIFEST.json; its step has to be `step`.
Manifest manifest_of_folder(const std::string& text, const std::string& checkpoint,
                            std::int64_t step);
/// All of it: what the folder step_N holds.
Manifest read_manifest(const std::string& checkpoint, std::int64_t step);

/// A file's part of a manifest, on its way to rank 0.
std::string manifest_file_to_json(const ManifestFile& file);
ManifestFile manifest_file_from_json(const std::string& text);

}  // namespace serrate
