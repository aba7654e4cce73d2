#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "serrate/planner_report.h"
#include "sharding/report/page_template.h"

namespace serrate {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const OptionReport& option) {
  return {{"type", to_string(option.type)},
          {"kernel", to_string(option.kernel)},
          {"possible", option.possible},
          {"num_shards", option.num_shards},
          {"shard_ms", option.shard_ms},
          {"work_ms", option.work_ms},
          {"device_bytes", option.device_bytes},
          {"host_bytes", option.host_bytes},
          {"chosen", option.chosen},
          {"why", option.why}};
}

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

// JSON that cannot end the script element it is in.
std::string escape_script(std::string_view json) {
  std::string escaped;
  for (const char c : json) {
    if (c == '<') {
      escaped += "\\u003c";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::string to_html(const PlanReport& report, std::span<const TableExplanation> explanations) {
  Json data = Json::parse(to_json(report));
  data["serrate"] = SERRATE_VERSION;
  data["explanations"] = Json::object();
  for (const TableExplanation& e : explanations) {
    Json options = Json::array();
    for (const OptionReport& option : e.options) options.push_back(json_of(option));
    data["explanations"][e.table] = {{"options", std::move(options)}};
  }
  const std::pair<std::string_view, std::string> parts[] = {
      {"@STYLE@", kPlanPageStyle},
      {"@SCRIPT@", kPlanPageScript},
      {"@SUMMARY@", escape_html(to_text(report))},
      {"@DATA@", escape_script(data.dump())}};
  // Replaced in one pass, as what is put in may contain anything.
  std::string page;
  std::string_view rest = kPlanPageTemplate;
  for (std::size_t at = rest.find('@'); at != std::string_view::npos; at = rest.find('@')) {
    page += rest.substr(0, at);
    rest.remove_prefix(at);
    const auto part =
        std::ranges::find_if(parts, [&](const auto& p) { return rest.starts_with(p.first); });
    page += part->second;
    rest.remove_prefix(part->first.size());
  }
  page += rest;
  return page;
}

}  // namespace serrate
