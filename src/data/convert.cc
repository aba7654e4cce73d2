#include "src/data/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <span>
#include <utility>

#include "serrate/error.h"
#include "src/data/dataset_writer.h"
#include "src/data/parse_time.h"
#include "src/io/delimited_text.h"

namespace serrate {
namespace {

constexpr std::size_t kListedBadRows = 10;

using Ids = std::vector<std::int64_t>;

/// One column of ids: bag i is values [offsets[i], offsets[i + 1]).
struct BagColumn {
  std::string name;
  std::size_t field = 0;
  bool words = false;  // each word of a field is an id
  Vocabulary vocabulary;
  Ids values;
  Ids offsets{0};

  void append(std::string_view text) {
    if (words) {
      for (std::size_t end = 0; !text.empty(); text.remove_prefix(std::min(end + 1, text.size()))) {
        end = std::min(text.find(' '), text.size());
        if (end > 0) values.push_back(vocabulary.add(text.substr(0, end)));
      }
    } else if (!text.empty()) {
      values.push_back(vocabulary.add(text));
    }
    offsets.push_back(static_cast<std::int64_t>(values.size()));
  }
  std::span<const std::int64_t> bag(std::int64_t row) const {
    return std::span(values).subspan(static_cast<std::size_t>(offsets[row]),
                                     static_cast<std::size_t>(offsets[row + 1] - offsets[row]));
  }
};

/// The rows of the input, as columns.
struct Rows {
  Vocabulary user_names;
  Ids users;
  Ids times_us;
  Vocabulary basket_names;
  Ids baskets;
  std::vector<BagColumn> features;  // the first is the item

  const Ids& items() const { return features.front().values; }
};

class RowReader {
 public:
  RowReader(const ConvertOptions& options, ConvertReport& report)
      : text_(options.input, options.separator),
        report_(report),
        user_(text_.column(options.user)),
        time_(text_.column(options.time)),
        with_baskets_(!options.basket.empty()),
        basket_(with_baskets_ ? text_.column(options.basket) : 0) {
    needed_ = {user_, text_.column(options.item)};
    if (with_baskets_) needed_.push_back(basket_);
    add_feature(options.item, /*may_be_words=*/false);
    for (const auto& name : options.categorical) add_feature(name, /*may_be_words=*/true);
  }

  Rows read() {
    while (text_.next()) {
      ++report_.num_rows;
      const std::string problem = append_row();
      if (problem.empty()) continue;
      ++report_.num_bad_rows;
      if (report_.first_bad_rows.size() < kListedBadRows) {
        report_.first_bad_rows.push_back({text_.line(), problem});
      }
    }
    return std::move(rows_);
  }

 private:
  void add_feature(const std::string& name, bool may_be_words) {
    if (std::ranges::find(rows_.features, name, &BagColumn::name) != rows_.features.end()) {
      throw usage_error(fmt::format("column {} is named twice (as item or categorical)", name));
    }
    BagColumn column;
    column.name = name;
    column.field = text_.column(name);
    column.words = may_be_words && text_.columns()[column.field].type == "token_seq";
    rows_.features.push_back(std::move(column));
  }

  /// What is wrong with the current row, or nothing when it was taken.
  std::string append_row() {
    const auto& fields = text_.fields();
    if (fields.size() != text_.columns().size()) {
      return fmt::format("{} fields, the header has {}", fields.size(), text_.columns().size());
    }
    for (const std::size_t field : needed_) {
      if (fields[field].empty()) return fmt::format("{} is empty", text_.columns()[field].name);
    }
    const auto time_us = parse_time_us(fields[time_]);
    if (!time_us) {
      return fmt::format("{} '{}' is neither seconds nor an ISO 8601 time",
                         text_.columns()[time_].name, fields[time_].substr(0, 40));
    }
    rows_.users.push_back(rows_.user_names.add(fields[user_]));
    rows_.times_us.push_back(*time_us);
    if (with_baskets_) rows_.baskets.push_back(rows_.basket_names.add(fields[basket_]));
    for (auto& feature : rows_.features) feature.append(fields[feature.field]);
    return "";
  }

  DelimitedText text_;
  ConvertReport& report_;
  std::size_t user_;
  std::size_t time_;
  bool with_baskets_;
  std::size_t basket_;
  std::vector<std::size_t> needed_;  // fields that must not be empty
  Rows rows_;
};

std::string list_bad_rows(const ConvertReport& report) {
  std::string list;
  for (const auto& row : report.first_bad_rows) {
    list += fmt::format("\n  line {}: {}", row.line, row.reason);
  }
  if (report.num_bad_rows > static_cast<std::int64_t>(report.first_bad_rows.size()))
    list += "\n  ...";
  return list;
}

/// Rows, in order, of the largest part in which every user and every item has at least k rows.
Ids k_core_rows(const Rows& rows, std::int64_t k) {
  Ids kept(rows.users.size());
  std::iota(kept.begin(), kept.end(), std::int64_t{0});
  for (std::size_t before = kept.size() + 1; k > 1 && kept.size() < before;) {
    before = kept.size();
    Ids user_count(static_cast<std::size_t>(rows.user_names.size()));
    Ids item_count(static_cast<std::size_t>(rows.features.front().vocabulary.size()));
    for (const std::int64_t row : kept) {
      ++user_count[rows.users[row]];
      ++item_count[rows.items()[row]];
    }
    std::erase_if(kept, [&](std::int64_t row) {
      return user_count[rows.users[row]] < k || item_count[rows.items()[row]] < k;
    });
  }
  return kept;
}

/// Numbers ids again in the order of their first appearance, leaving out those that do not appear.
class Renumbering {
 public:
  explicit Renumbering(const Vocabulary& before)
      : before_(before), new_ids_(static_cast<std::size_t>(before.size()), -1) {}

  std::int64_t operator()(std::int64_t id) {
    std::int64_t& new_id = new_ids_[id];
    if (new_id < 0) new_id = after_.add(before_.text(id));
    return new_id;
  }
  Vocabulary take() { return std::move(after_); }

 private:
  const Vocabulary& before_;
  Ids new_ids_;
  Vocabulary after_;
};

/// Leaves the rows `kept` alone, and of the vocabularies what they use.
void keep_rows(Rows& rows, const Ids& kept) {
  Rows result;
  Renumbering user_id(rows.user_names);
  for (const std::int64_t row : kept) {
    result.users.push_back(user_id(rows.users[row]));
    result.times_us.push_back(rows.times_us[row]);
    if (!rows.baskets.empty()) result.baskets.push_back(rows.baskets[row]);
  }
  result.user_names = user_id.take();
  for (const auto& feature : rows.features) {
    Renumbering id_of(feature.vocabulary);
    BagColumn column;
    column.name = feature.name;
    for (const std::int64_t row : kept) {
      for (const std::int64_t id : feature.bag(row)) column.values.push_back(id_of(id));
      column.offsets.push_back(static_cast<std::int64_t>(column.values.size()));
    }
    column.vocabulary = id_of.take();
    result.features.push_back(std::move(column));
  }
  rows = std::move(result);
}

/// Rows by user, time and position in the input; user_offsets [num_users + 1] into them.
struct Order {
  Ids rows;
  Ids user_offsets;
};

Order order_by_user_and_time(const Rows& rows) {
  Order order;
  order.user_offsets.resize(static_cast<std::size_t>(rows.user_names.size()) + 1);
  for (const std::int64_t user : rows.users) ++order.user_offsets[user + 1];
  std::partial_sum(order.user_offsets.begin(), order.user_offsets.end(),
                   order.user_offsets.begin());
  order.rows.resize(rows.users.size());
  Ids next = order.user_offsets;
  for (std::size_t row = 0; row < rows.users.size(); ++row) {
    order.rows[next[rows.users[row]]++] = static_cast<std::int64_t>(row);
  }
  const auto by_time = [&](std::int64_t row) { return std::pair(rows.times_us[row], row); };
  for (std::size_t user = 0; user + 1 < order.user_offsets.size(); ++user) {
    std::ranges::sort(order.rows.begin() + order.user_offsets[user],
                      order.rows.begin() + order.user_offsets[user + 1], {}, by_time);
  }
  return order;
}

std::int64_t whole_seconds(std::int64_t time_us) {
  return time_us / 1'000'000 - (time_us % 1'000'000 < 0);
}

/// The values of a column for some rows.
void gather(const Ids& column, std::span<const std::int64_t> rows, Ids& result) {
  result.clear();
  for (const std::int64_t row : rows) result.push_back(column[row]);
}

void gather(const BagColumn& column, std::span<const std::int64_t> rows, Ids& values,
            Ids& offsets) {
  values.clear();
  offsets.assign(1, 0);
  for (const std::int64_t row : rows) {
    const auto bag = column.bag(row);
    values.insert(values.end(), bag.begin(), bag.end());
    offsets.push_back(static_cast<std::int64_t>(values.size()));
  }
}

DatasetSpec spec_of(const Rows& rows, const ConvertOptions& options) {
  DatasetSpec spec{.num_users = rows.user_names.size(),
                   .num_events = static_cast<std::int64_t>(rows.users.size()),
                   .with_baskets = !rows.baskets.empty(),
                   .source = std::filesystem::path(options.input).filename().string(),
                   .licence = options.licence};
  for (const auto& feature : rows.features) {
    const auto longer = std::ranges::adjacent_find(
        feature.offsets, [](std::int64_t begin, std::int64_t end) { return end != begin + 1; });
    const bool one_each = longer == feature.offsets.end();
    spec.features.push_back({feature.name, feature.vocabulary.size(),
                             one_each ? -1 : static_cast<std::int64_t>(feature.values.size())});
  }
  return spec;
}

void write_rows(const Rows& rows, const ConvertOptions& options) {
  DatasetWriter writer(options.output, spec_of(rows, options));
  const Order order = order_by_user_and_time(rows);
  Ids times, baskets;
  std::vector<Ids> values(rows.features.size()), offsets(rows.features.size());
  for (std::size_t user = 0; user + 1 < order.user_offsets.size(); ++user) {
    const auto begin = static_cast<std::size_t>(order.user_offsets[user]);
    const auto end = static_cast<std::size_t>(order.user_offsets[user + 1]);
    const auto user_rows = std::span(order.rows).subspan(begin, end - begin);
    gather(rows.times_us, user_rows, times);
    std::ranges::transform(times, times.begin(), whole_seconds);
    if (!rows.baskets.empty()) gather(rows.baskets, user_rows, baskets);
    UserEvents events{.timestamps = times, .baskets = baskets, .features = {}};
    for (std::size_t f = 0; f < rows.features.size(); ++f) {
      gather(rows.features[f], user_rows, values[f], offsets[f]);
      events.features.push_back({values[f], offsets[f]});
    }
    writer.append_user(events);
  }
  writer.write_user_vocabulary(rows.user_names);
  for (std::size_t f = 0; f < rows.features.size(); ++f) {
    writer.write_vocabulary(static_cast<std::int64_t>(f), rows.features[f].vocabulary);
  }
  writer.commit();
}

}  // namespace

ConvertReport convert(const ConvertOptions& options) {
  std::error_code missing;
  if (std::filesystem::equivalent(options.input, options.output, missing)) {
    throw usage_error(
        fmt::format("{} is both input and output; name another output", options.input));
  }
  ConvertReport report;
  Rows rows = RowReader(options, report).read();
  if (report.num_bad_rows > 0 && options.bad_rows == BadRows::kError) {
    throw usage_error(fmt::format(
        "{} has {} bad rows of {}, nothing was written; mend them or use --skip-bad-rows{}",
        options.input, report.num_bad_rows, report.num_rows, list_bad_rows(report)));
  }
  const Ids kept = k_core_rows(rows, options.k_core);
  if (kept.empty()) {
    throw usage_error(fmt::format("{} leaves no events ({} rows, {} of them bad, k-core {})",
                                  options.input, report.num_rows, report.num_bad_rows,
                                  options.k_core));
  }
  report.num_dropped_by_k_core = static_cast<std::int64_t>(rows.users.size() - kept.size());
  if (report.num_dropped_by_k_core > 0) keep_rows(rows, kept);
  write_rows(rows, options);
  report.num_events = static_cast<std::int64_t>(rows.users.size());
  report.num_users = rows.user_names.size();
  report.num_items = rows.features.front().vocabulary.size();
  return report;
}

std::string to_string(const ConvertReport& report) {
  return fmt::format(
      "{} rows read, {} bad rows left out, {} dropped by the k-core\n"
      "{} events of {} users and {} items written{}",
      report.num_rows, report.num_bad_rows, report.num_dropped_by_k_core, report.num_events,
      report.num_users, report.num_items,
      report.num_bad_rows > 0 ? "\nbad rows:" + list_bad_rows(report) : "");
}

}  // namespace serrate
