#include "src/data/vocabulary.h"

#include <functional>

namespace serrate {

std::size_t Vocabulary::find_slot(std::string_view text) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = std::hash<std::string_view>()(text) & mask;
  while (slots_[slot] >= 0 && this->text(slots_[slot]) != text) slot = (slot + 1) & mask;
  return slot;
}

std::int64_t Vocabulary::add(std::string_view text) {
  std::size_t slot = find_slot(text);
  if (slots_[slot] >= 0) return slots_[slot];
  const std::int64_t id = size();
  bytes_.append(text);
  offsets_.push_back(static_cast<std::int64_t>(bytes_.size()));
  slots_[slot] = id;
  if (2 * offsets_.size() > slots_.size()) {
    slots_.assign(2 * slots_.size(), -1);
    for (std::int64_t i = 0; i <= id; ++i) slots_[find_slot(this->text(i))] = i;
  }
  return id;
}

}  // namespace serrate
