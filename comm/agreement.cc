#include "comm/agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "serrate/error.h"
#include "src/core/json.h"

namespace serrate {
namespace {

using nlohmann::json;

struct Difference {
  std::string path;  // "plan.tables[2].shards[0].rank"
  std::string first, other;
};

// The first place where two documents differ.
std::optional<Difference> find_difference(const json* first, const json* other,
                                          const std::string& path) {
  const auto text = [](const json* value) { return value ? value->dump() : "nothing"; };
  if (first && other && *first == *other) return std::nullopt;
  if (first && other && first->is_object() && other->is_object()) {
    json names = *first;
    names.update(*other);
    for (const auto& [name, value] : names.items()) {
      const std::string member = path.empty() ? name : path + "." + name;
      const json* a = first->contains(name) ? &first->at(name) : nullptr;
      const json* b = other->contains(name) ? &other->at(name) : nullptr;
      if (auto found = find_difference(a, b, member)) return found;
    }
  }
  if (first && other && first->is_array() && other->is_array()) {
    for (std::size_t i = 0; i < std::max(first->size(), other->size()); ++i) {
      const json* a = i < first->size() ? &(*first)[i] : nullptr;
      const json* b = i < other->size() ? &(*other)[i] : nullptr;
      if (auto found = find_difference(a, b, fmt::format("{}[{}]", path, i))) return found;
    }
  }
  return Difference{path, text(first), text(other)};
}

}  // namespace

void require_agreement(Communicator& communicator, std::string_view what, const std::string& text) {
  const auto texts = communicator.gather_strings("agreement", text);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    const json first = parse_json(texts[0], what), other = parse_json(texts[rank], what);
    const auto found = find_difference(&first, &other, std::string(what));
    if (!found) continue;  // written in two ways
    throw usage_error(
        fmt::format("rank {} differs from rank 0 in {}: {} there, {} on rank 0 (all ranks need the "
                    "same): start every rank with the same files and options",
                    rank, found->path, found->other, found->first));
  }
}

}  // namespace serrate
