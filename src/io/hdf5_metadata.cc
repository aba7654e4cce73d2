#include "src/io/hdf5_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

#include "serrate/error.h"

namespace serrate {
namespace {

constexpr std::uint64_t kUndefined = ~std::uint64_t{0};
constexpr std::size_t kDeepest = 16;  // names in a path

enum MessageType : std::uint64_t {
  kDataspace = 0x1,
  kLinkInfo = 0x2,
  kDatatype = 0x3,
  kLink = 0x6,
  kExternalFiles = 0x7,
  kLayout = 0x8,
  kAttribute = 0xC,
  kContinuation = 0x10,
  kSymbolTable = 0x11,
  kAttributeInfo = 0x15,
};

struct Malformed {
  std::string what;
};

/// Takes little-endian numbers and bytes from the front of a piece of the file.
class Bytes {
 public:
  explicit Bytes(std::string_view rest) : rest_(rest) {}

  std::size_t size() const { return rest_.size(); }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) throw Malformed{"a piece of metadata is too short"};
    const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(count));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  /// An unsigned number of 1 to 8 bytes.
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(bytes).data(), bytes);
    return value;
  }
  void expect(std::string_view bytes, const char* what) {
    if (take(bytes.size()) != bytes) throw Malformed{what};
  }

 private:
  std::string_view rest_;
};

struct Link {
  std::string name;
  bool hard = false;
  std::uint64_t address = 0;
};

struct Header {
  Hdf5Object object;
  std::vector<Link> links;
};

Hdf5Type parse_type(std::string_view message) {
  // The upper half of the first byte is the version of the message, which these types share.
  struct Known {
    Hdf5Type type;
    std::string_view bytes;
  };
  using namespace std::string_view_literals;
  static constexpr std::array kKnown = {
      Known{Hdf5Type::kUint8, "\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x08\x00"sv},
      Known{Hdf5Type::kInt64, "\x00\x08\x00\x00\x08\x00\x00\x00\x00\x00\x40\x00"sv},
      Known{Hdf5Type::kFloat16,
            "\x01\x20\x0F\x00\x02\x00\x00\x00\x00\x00\x10\x00\x0A\x05\x00\x0A\x0F\x00\x00\x00"sv},
      Known{Hdf5Type::kBFloat16,
            "\x01\x20\x0F\x00\x02\x00\x00\x00\x00\x00\x10\x00\x07\x08\x00\x07\x7F\x00\x00\x00"sv},
      Known{Hdf5Type::kFloat32,
            "\x01\x20\x1F\x00\x04\x00\x00\x00\x00\x00\x20\x00\x17\x08\x00\x17\x7F\x00\x00\x00"sv},
      Known{Hdf5Type::kFloat64,
            "\x01\x20\x3F\x00\x08\x00\x00\x00\x00\x00\x40\x00\x34\x0B\x00\x34\xFF\x03\x00\x00"sv}};
  if (message.size() < 8) throw Malformed{"a type is too short"};
  const int version = static_cast<unsigned char>(message[0]) >> 4;
  const int type_class = message[0] & 0xF;
  if (version < 1 || version > 3) return Hdf5Type::kOther;
  if (type_class == 3) return Hdf5Type::kText;
  for (const Known& known : kKnown) {
    // Messages of object headers may be padded at their end.
    if (type_class == known.bytes[0] && message.substr(1).starts_with(known.bytes.substr(1))) {
      return known.type;
    }
  }
  return Hdf5Type::kOther;
}

struct Dataspace {
  bool scalar = false;
  std::vector<std::uint64_t> dims;
};

Dataspace parse_dataspace(Bytes message) {
  const std::uint64_t version = message.number(1);
  const std::uint64_t rank = message.number(1);
  message.number(1);  // whether there are largest extents, which nobody asks for
  if (version != 2 || rank > 32) throw Malformed{"a dataspace is not of version 2"};
  Dataspace space;
  space.scalar = message.number(1) == 0;
  for (std::uint64_t i = 0; i < rank; ++i) space.dims.push_back(message.number(8));
  return space;
}

void parse_layout(Bytes message, Hdf5Object& object) {
  const std::uint64_t version = message.number(1);
  const std::uint64_t layout_class = message.number(1);
  if ((version != 3 && version != 4) || layout_class != 1) return;  // not contiguous
  object.contiguous = true;
  object.offset = message.number(8);
  object.bytes = message.number(8);
}

Link parse_link(Bytes message) {
  if (message.number(1) != 1) throw Malformed{"a link is not of version 1"};
  const std::uint64_t flags = message.number(1);
  Link link;
  link.hard = (flags & 0x8) == 0 || message.number(1) == 0;
  if (flags & 0x4) message.number(8);   // order of creation
  if (flags & 0x10) message.number(1);  // character set
  link.name = message.take(message.number(std::size_t{1} << (flags & 3)));
  if (link.hard) link.address = message.number(8);
  return link;
}

void parse_attribute(Bytes message, Hdf5Object& object) {
  if (message.number(1) != 3 || message.number(1) != 0) {
    throw Malformed{"an attribute is not of version 3"};
  }
  const std::uint64_t name_size = message.number(2);
  const std::uint64_t type_size = message.number(2);
  const std::uint64_t space_size = message.number(2);
  message.number(1);  // character set
  const std::string_view name = message.take(name_size);
  const std::string_view type = message.take(type_size);
  const Dataspace space = parse_dataspace(Bytes(message.take(space_size)));
  Hdf5Attribute attribute{.type = parse_type(type), .scalar = space.scalar, .bytes = {}};
  if (space.scalar) {
    Bytes size(type.substr(4));
    attribute.bytes = message.take(size.number(4));
  }
  object.attributes.insert_or_assign(std::string(name.substr(0, name.find('\0'))),
                                     std::move(attribute));
}

class MetadataReader {
 public:
  explicit MetadataReader(const SealedFile& file) : file_(file), budget_(2 * file.size()) {}

  Hdf5Metadata read() {
    const std::string text = read_piece(0, 48);
    Bytes superblock(text);
    superblock.expect("\x89HDF\r\n\x1a\n", "it is not HDF5");
    const std::uint64_t version = superblock.number(1);
    if (version != 2 && version != 3) throw Malformed{"its superblock is not of version 2 or 3"};
    superblock.expect("\x08\x08", "its addresses do not have 8 bytes");
    superblock.number(1);  // who has it open
    if (superblock.number(8) != 0) throw Malformed{"its addresses do not begin with the file"};
    superblock.take(16);  // an extension; the end
    read_object("/", superblock.number(8), 0);
    return std::move(metadata_);
  }

 private:
  /// All pieces together are not much larger than the file: they do not overlap in a sound one but
  /// for the beginnings of headers.
  std::string read_piece(std::uint64_t address, std::uint64_t size) {
    const auto end = static_cast<std::uint64_t>(file_.size());
    if (size > static_cast<std::uint64_t>(budget_) || size > end || address > end - size) {
      throw Malformed{"its metadata lies outside of the file or goes round in circles"};
    }
    budget_ -= static_cast<std::int64_t>(size);
    std::string piece(static_cast<std::size_t>(size), '\0');
    file_.read(static_cast<std::int64_t>(address), std::as_writable_bytes(std::span(piece)));
    return piece;
  }

  void read_object(const std::string& path, std::uint64_t address, std::size_t depth) {
    if (depth > kDeepest) throw Malformed{"its groups are nested too deep"};
    if (!addresses_.insert(address).second) throw Malformed{path + " has another name, too"};
    Header header = read_header(address);
    metadata_.objects[path] = std::move(header.object);
    for (const Link& link : header.links) {
      const std::string name = (path == "/" ? "" : path) + "/" + link.name;
      if (link.name.empty() ||
          link.name.find_first_of(std::string_view("/\0", 2)) != link.name.npos ||
          metadata_.objects.contains(name)) {
        throw Malformed{"a name in " + path + " is empty, has a slash or appears twice"};
      }
      if (link.hard) {
        read_object(name, link.address, depth + 1);
      } else {
        metadata_.other_links.push_back(name);
      }
    }
  }

  Header read_header(std::uint64_t address) {
    constexpr std::uint64_t kLongestPrefix = 4 + 1 + 1 + 16 + 4 + 8;
    const auto end = static_cast<std::uint64_t>(file_.size());
    const std::string start = read_piece(
        address, std::min(kLongestPrefix, address < end ? end - address : kLongestPrefix));
    Bytes prefix(start);
    prefix.expect("OHDR\x02", "an object header is not of version 2");
    const std::uint64_t flags = prefix.number(1);
    if (flags & 0x20) prefix.take(16);  // times
    if (flags & 0x10) prefix.take(4);   // when links are stored elsewhere
    const std::uint64_t size = prefix.number(std::size_t{1} << (flags & 3));
    const std::uint64_t first = address + (start.size() - prefix.size());

    Header header;
    continuations_ = {{first, size}};
    while (!continuations_.empty()) {
      const auto [chunk, bytes] = continuations_.back();
      continuations_.pop_back();
      const std::string text = read_piece(chunk, bytes);
      read_messages(Bytes(text), (flags & 0x4) != 0, header);
    }
    return header;
  }

  void read_messages(Bytes chunk, bool ordered, Header& header) {
    const std::size_t message_header = ordered ? 6 : 4;
    while (chunk.size() >= message_header) {  // what is shorter is a gap
      const std::uint64_t type = chunk.number(1);
      const std::uint64_t size = chunk.number(2);
      const std::uint64_t flags = chunk.number(1);
      if (ordered) chunk.number(2);
      const std::string_view message = chunk.take(size);
      if (flags & 0x2) throw Malformed{"an object shares what it says with others"};
      read_message(type, message, header);
    }
  }

  void read_message(std::uint64_t type, std::string_view message, Header& header) {
    Hdf5Object& object = header.object;
    switch (type) {
      case kDataspace: {
        Dataspace space = parse_dataspace(Bytes(message));
        object.dims = std::move(space.dims);
        break;
      }
      case kDatatype:
        object.type = parse_type(message);
        break;
      case kLayout:
        object.is_dataset = true;
        parse_layout(Bytes(message), object);
        break;
      case kExternalFiles:
        throw Malformed{"a dataset is stored in other files"};
      case kLink:
        header.links.push_back(parse_link(Bytes(message)));
        break;
      case kAttribute:
        parse_attribute(Bytes(message), object);
        break;
      case kLinkInfo:
      case kAttributeInfo:
        expect_no_heap(type, Bytes(message));
        break;
      case kContinuation: {
        Bytes continuation(message);
        const std::uint64_t address = continuation.number(8);
        const std::uint64_t size = continuation.number(8);
        // A signature before the messages and a checksum behind them.
        if (size < 8 || address > kUndefined - size) throw Malformed{"a continuation is too short"};
        continuations_.emplace_back(address + 4, size - 8);
        break;
      }
      case kSymbolTable:
        throw Malformed{"a group is of the older kind"};
      default:  // says nothing that is needed
        break;
    }
  }

  /// Many links or attributes may lie in a heap of their own; Hdf5File does not do that.
  void expect_no_heap(std::uint64_t type, Bytes message) {
    message.number(1);
    const std::uint64_t flags = message.number(1);
    if (flags & 1) message.number(type == kLinkInfo ? 8 : 2);
    if (message.number(8) != kUndefined) throw Malformed{"an object has its names in a heap"};
  }

  const SealedFile& file_;
  std::int64_t budget_;
  Hdf5Metadata metadata_;
  std::set<std::uint64_t> addresses_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> continuations_;
};

}  // namespace

Hdf5Metadata read_hdf5_metadata(const SealedFile& file) {
  try {
    return MetadataReader(file).read();
  } catch (const Malformed& malformed) {
    throw usage_error(
        fmt::format("{} is not an HDF5 file as serrate writes them ({}): make it again",
                    file.path(), malformed.what));
  }
}

}  // namespace serrate
