#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "src/data/dataset_writer.h"

namespace serrate {

/// Two users: one with three events, one with one; events have basket numbers, and tags as bags.
inline void write_example(const std::string& path) {
  using Ids = std::vector<std::int64_t>;
  DatasetWriter writer(path, {.num_users = 2,
                              .num_events = 4,
                              .with_baskets = true,
                              .features = {{"item", 3}, {"tags", 2, 5}},
                              .source = "by hand",
                              .licence = "CC0"});
  const Ids times = {10, 10, 20}, baskets = {7, 7, 8}, items = {2, 0, 2};
  const Ids tags = {1, 0, 1}, tag_offsets = {0, 2, 2, 3};
  writer.append_user({times, baskets, {{items, {}}, {tags, tag_offsets}}});
  const Ids time = {5}, basket = {9}, item = {1}, more_tags = {-9, 0, 0}, more_offsets = {1, 3};
  writer.append_user({time, basket, {{item, {}}, {std::span(more_tags).subspan(1), more_offsets}}});
  Vocabulary items_texts, users;
  for (const char* text : {"apple", "", "çay"}) items_texts.add(text);
  for (const char* text : {"anna", "bob"}) users.add(text);
  writer.write_vocabulary(0, items_texts);
  writer.write_user_vocabulary(users);
  writer.commit();
}

}  // namespace serrate
