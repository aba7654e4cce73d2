#include "sharding/estimate/zipf.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace serrate {
namespace {

constexpr double kExactTerms = 64;

// Gauss and Legendre's nodes in (0, 1) and their weights, for 8 points.
constexpr std::array<double, 4> kNodes{0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
                                       0.9602898564975363};
constexpr std::array<double, 4> kWeights{0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
                                         0.1012285362903763};

// The sum of f(1) ... f(last) for a smooth f. The terms beyond the first are the integral around
// them, taken over log k, in which f changes slowly.
template <typename F>
double sum_over_rows(double last, const F& f) {
  double sum = 0;
  const double exact = std::min(last, kExactTerms);
  for (double k = 1; k <= exact; ++k) sum += f(k);
  if (last <= exact) return sum;
  const double begin = std::log(exact + 0.5), end = std::log(last + 0.5);
  const double panels = std::ceil(end - begin);
  const double half = (end - begin) / panels / 2;
  for (double panel = 0; panel < panels; ++panel) {
    const double middle = begin + (2 * panel + 1) * half;
    for (std::size_t i = 0; i < kNodes.size(); ++i) {
      for (const double node : {-kNodes[i], kNodes[i]}) {
        const double k = std::exp(middle + half * node);
        sum += half * kWeights[i] * k * f(k);
      }
    }
  }
  return sum;
}

double sum_of_powers(double last, double exponent) {
  return sum_over_rows(last, [=](double k) { return std::pow(k, -exponent); });
}

}  // namespace

double expected_distinct(double draws, double num_rows, double exponent) {
  if (draws <= 0) return 0;
  const auto seen = [=](double probability) {
    return -std::expm1(draws * std::log1p(-std::min(probability, 1.0)));
  };
  if (exponent == 0) return num_rows * seen(1 / num_rows);
  const double all = sum_of_powers(num_rows, exponent);
  return sum_over_rows(num_rows, [&](double k) { return seen(std::pow(k, -exponent) / all); });
}

double share_of_draws(double most_frequent, double num_rows, double exponent) {
  if (exponent == 0) return most_frequent / num_rows;
  return sum_of_powers(most_frequent, exponent) / sum_of_powers(num_rows, exponent);
}

}  // namespace serrate
