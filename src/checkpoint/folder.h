#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serrate {

struct FoundCheckpoint {
  std::string path;
  std::int64_t step = 0;
};

/// The step_N folders of a directory, newest first; none when there is no directory.
std::vector<FoundCheckpoint> list_checkpoints(const std::string& directory);

/// `directory`/step_N, and where it is while it is being written.
std::string checkpoint_folder(const std::string& directory, std::int64_t step);
std::string unfinished_folder(const std::string& directory, std::int64_t step);

/// Makes a folder and those above it, each durable.
void make_folders(const std::string& path);

/// An empty unfinished_folder().
void make_unfinished(const std::string& directory, std::int64_t step);
/// Removes what a writer that was killed left; returns the names.
std::vector<std::string> remove_unfinished(const std::string& directory);
/// The checkpoint is there from now on, durable, in place of an earlier one of the same step.
void commit_checkpoint(const std::string& directory, std::int64_t step);
/// Removes all but the `keep` newest checkpoints.
void remove_older(const std::string& directory, int keep);
/// Renames step_N to damaged.step_N, or a name like it that is free; returns the new path.
std::string set_aside(const FoundCheckpoint& checkpoint);

/// Renames a file or folder to the first name of `wanted`, `wanted`.1, .2, ... that is free, never
/// over another; returns it. `wanted` may be its own name, which is not free.
std::string rename_to_free_name(const std::string& from, const std::string& wanted);

/// Throws the Error of a checkpoint's file that cannot be read: kUsage when loading is to pass over
/// the checkpoint, as damaged; kFailure when it is to end, for what the system lacks (descriptors,
/// memory) and what it does not permit say nothing about what the file holds.
[[noreturn]] void fail_read(const std::string& path, int error);

}  // namespace serrate
