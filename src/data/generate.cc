#include "src/data/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "serrate/error.h"
#include "serrate/random.h"
#include "src/data/dataset_writer.h"

namespace serrate {
namespace {

// What the next item is: the share of each kind; the rest is any item by popularity.
constexpr double kFollower = 0.60;
constexpr double kLiked = 0.20;
constexpr double kRepeated = 0.15;

constexpr std::int64_t kFollowers = 4;       // of an item
constexpr std::int64_t kRecent = 4;          // items whose followers may come next
constexpr std::int64_t kLikedClusters = 3;   // of a user
constexpr std::int64_t kShortest = 3;        // events of a user, where there are enough
constexpr double kLengthSigma = 1.2;         // of the logarithm of a history's length
constexpr double kBasketContinues = 0.3;     // chance that the next event shares the time
constexpr double kMeanGapSeconds = 40'000;   // between baskets
constexpr std::int64_t kStart = 1577836800;  // 2020-01-01
constexpr std::int64_t kStartSpread = 365 * 86'400;

/// What a random number is about; each has its own stream.
enum Subject : std::uint32_t { kLengths, kUsers, kEvents, kItems };

/// Random numbers about one thing, by its position: at most 8.
class Numbers {
 public:
  Numbers(std::uint64_t seed, Subject subject, std::int64_t position)
      : seed_(seed), subject_(subject), next_(8 * static_cast<std::uint64_t>(position)) {}
  std::uint64_t bits() { return random_bits(seed_, RandomUse::kGenerate, subject_, next_++); }
  double uniform() { return random_uniform(seed_, RandomUse::kGenerate, subject_, next_++); }
  std::int64_t below(std::int64_t bound) {
    return random_below(seed_, RandomUse::kGenerate, subject_, next_++, bound);
  }
  /// v below `bound` with a probability of about 1 / (v + 1.5): Zipf's law with exponent 1.
  std::int64_t zipf(std::int64_t bound) {
    const double value = std::pow(static_cast<double>(bound + 1), uniform()) - 1;
    return std::min(static_cast<std::int64_t>(value), bound - 1);
  }
  /// 0 with probability 1/2, 1 with 1/4, and so on; what is left goes to bound - 1.
  std::int64_t halving(std::int64_t bound) {
    return std::min<std::int64_t>(std::countl_zero(bits()), bound - 1);
  }
  double normal() {  // Box and Muller
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  std::uint64_t seed_;
  std::uint32_t subject_;
  std::uint64_t next_;
};

/// Items by rank of popularity, in clusters: rank modulo their number, so that each has items of
/// all ranks.
class Catalogue {
 public:
  Catalogue(std::int64_t items, std::uint64_t seed)
      : items_(items),
        clusters_(std::max<std::int64_t>(1, std::llround(std::sqrt(items) / 2))),
        seed_(seed) {
    while (std::gcd(multiplier_, items_) != 1) ++multiplier_;
  }

  std::int64_t num_clusters() const { return clusters_; }
  std::int64_t cluster_of(std::int64_t rank) const { return rank % clusters_; }
  std::int64_t draw(Numbers& numbers) const { return numbers.zipf(items_); }
  std::int64_t draw_from(std::int64_t cluster, Numbers& numbers) const {
    const std::int64_t size = (items_ - cluster + clusters_ - 1) / clusters_;
    return numbers.zipf(size) * clusters_ + cluster;
  }
  std::int64_t follower(std::int64_t rank, std::int64_t choice) const {
    Numbers numbers(seed_, kItems, rank * kFollowers + choice);
    return draw_from(cluster_of(rank), numbers);
  }
  /// The id of an item: ranks scattered, so that ids do not tell popularity.
  std::int64_t id_of(std::int64_t rank) const {
    return static_cast<std::int64_t>(static_cast<Uint128>(rank) *
                                     static_cast<Uint128>(multiplier_) %
                                     static_cast<Uint128>(items_));
  }

 private:
  std::int64_t items_;
  std::int64_t clusters_;
  std::uint64_t seed_;
  std::int64_t multiplier_ = 0x9E3779B97F4A7C1;  // made prime to the number of items
};

/// Shares the events out: [users + 1], each user at least kShortest where that is possible.
std::vector<std::int64_t> draw_user_offsets(const GenerateOptions& options) {
  std::vector<double> weight_sums(static_cast<std::size_t>(options.users) + 1);
  for (std::int64_t user = 0; user < options.users; ++user) {
    Numbers numbers(options.seed, kLengths, user);
    weight_sums[user + 1] = weight_sums[user] + std::exp(kLengthSigma * numbers.normal());
  }
  const std::int64_t shortest = std::min(kShortest, options.events / options.users);
  const auto shared = static_cast<double>(options.events - shortest * options.users);
  std::vector<std::int64_t> offsets(weight_sums.size());
  for (std::int64_t user = 0; user <= options.users; ++user) {
    const double part = weight_sums[user] / weight_sums.back();
    offsets[user] = user * shortest + static_cast<std::int64_t>(shared * part);
  }
  return offsets;
}

/// Makes the events of one user after another.
class UserGenerator {
 public:
  UserGenerator(const GenerateOptions& options, const Catalogue& catalogue)
      : seed_(options.seed), catalogue_(catalogue) {}

  /// Events [begin, end) of all are those of `user`.
  void generate(std::int64_t user, std::int64_t begin, std::int64_t end) {
    Numbers traits(seed_, kUsers, user);
    for (auto& cluster : liked_) cluster = catalogue_.cluster_of(catalogue_.draw(traits));
    std::int64_t time = kStart + traits.below(kStartSpread);
    ranks_.clear();
    times_.clear();
    for (std::int64_t event = begin; event < end; ++event) {
      Numbers numbers(seed_, kEvents, event);
      ranks_.push_back(next_rank(numbers));
      if (event > begin && numbers.uniform() >= kBasketContinues) {
        time += 1 + static_cast<std::int64_t>(-kMeanGapSeconds * std::log(1 - numbers.uniform()));
      }
      times_.push_back(time);
    }
  }

  const std::vector<std::int64_t>& ranks() const { return ranks_; }
  const std::vector<std::int64_t>& times() const { return times_; }

 private:
  std::int64_t next_rank(Numbers& numbers) const {
    const double kind = numbers.uniform();
    if (kind < kFollower && !ranks_.empty()) {
      const auto known = static_cast<std::int64_t>(ranks_.size());
      const std::int64_t recent = ranks_[known - 1 - numbers.halving(std::min(kRecent, known))];
      return catalogue_.follower(recent, numbers.halving(kFollowers));
    }
    if (kind < kFollower + kLiked) {
      return catalogue_.draw_from(liked_[numbers.below(kLikedClusters)], numbers);
    }
    if (kind < kFollower + kLiked + kRepeated && !ranks_.empty()) {
      return ranks_[numbers.below(static_cast<std::int64_t>(ranks_.size()))];
    }
    return catalogue_.draw(numbers);
  }

  std::uint64_t seed_;
  const Catalogue& catalogue_;
  std::int64_t liked_[kLikedClusters] = {};
  std::vector<std::int64_t> ranks_;
  std::vector<std::int64_t> times_;
};

}  // namespace

void generate(const GenerateOptions& options) {
  if (options.users < 1 || options.items < 1 || options.events < options.users) {
    throw usage_error(
        fmt::format("cannot generate {} events of {} users and {} items (at least "
                    "one user, one item and one event a user are needed)",
                    options.events, options.users, options.items));
  }
  const Catalogue catalogue(options.items, options.seed);
  DatasetWriter writer(
      options.output,
      {.num_users = options.users,
       .num_events = options.events,
       .features = {{"item", options.items}, {"category", catalogue.num_clusters()}},
       .source = fmt::format("serrate generate --users {} --items {} --events {} --seed {}",
                             options.users, options.items, options.events, options.seed),
       .licence = "none needed: made up"});
  const auto user_offsets = draw_user_offsets(options);
  UserGenerator user_events(options, catalogue);
  std::vector<std::int64_t> items, categories;
  for (std::int64_t user = 0; user < options.users; ++user) {
    user_events.generate(user, user_offsets[user], user_offsets[user + 1]);
    items.clear();
    categories.clear();
    for (const std::int64_t rank : user_events.ranks()) {
      items.push_back(catalogue.id_of(rank));
      categories.push_back(catalogue.cluster_of(rank));
    }
    writer.append_user(
        {.timestamps = user_events.times(), .features = {{items, {}}, {categories, {}}}});
  }
  writer.commit();
}

}  // namespace serrate
