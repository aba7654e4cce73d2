#pragma once

namespace serrate {

// Ids of `num_rows` rows, of which the k-th most frequent one is drawn with a probability that is
// proportional to k^-exponent. The sums over rows are taken row by row for the most frequent ones
// and by quadrature for the rest: 1e-4 of a row, or of the result, whichever is more.

/// The expected number of different ids in `draws` independent draws.
double expected_distinct(double draws, double num_rows, double exponent);

/// The part of all draws that falls on the `most_frequent` rows.
double share_of_draws(double most_frequent, double num_rows, double exponent);

}  // namespace serrate
