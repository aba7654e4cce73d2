#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "src/io/sealed_file.h"

namespace serrate {

/// The element types of datasets and attributes that are read.
enum class Hdf5Type { kUint8, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64, kText, kOther };

struct Hdf5Attribute {
  Hdf5Type type = Hdf5Type::kOther;
  bool scalar = false;
  std::string bytes;  // of the value
};

/// A group or a dataset.
struct Hdf5Object {
  std::map<std::string, Hdf5Attribute> attributes;
  bool is_dataset = false;
  Hdf5Type type = Hdf5Type::kOther;
  std::vector<std::uint64_t> dims;
  bool contiguous = false;   // one run of bytes, inside of the file
  std::uint64_t offset = 0;  // of that run
  std::uint64_t bytes = 0;
};

/// What is in an HDF5 file, by name: "/" is the root.
struct Hdf5Metadata {
  std::map<std::string, Hdf5Object> objects;
  std::vector<std::string> other_links;  // soft and external ones
};

/// Reads the metadata of an HDF5 file as Hdf5File writes it: superblock version 2 or 3, object
/// headers of version 2, links and attributes inside of them (HDF5 File Format Specification 3.0,
/// chapters II and IV). HDF5's own parser is not used: it trusts what a file says, and a hostile
/// file makes it read freed or foreign memory. Throws Error (usage) for anything else.
Hdf5Metadata read_hdf5_metadata(const SealedFile& file);

}  // namespace serrate
