#include "tests/support/simt/nccl_process.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/simt/memory.h"

namespace simt::nccl {
namespace {

namespace fs = std::filesystem;

/// What a call says of itself to the other end; its data follows.
struct Letter {
  char name[24] = {};
  std::uint64_t count = 0;
  int type = 0, op = 0, root = 0;
};

Letter letter_of(const Call& call) {
  Letter letter{.count = call.count, .type = call.type, .op = call.op, .root = call.root};
  std::strncpy(letter.name, call.name.c_str(), sizeof letter.name - 1);
  return letter;
}

// Written under another name first: who sees it sees all of it.
void write_file(const fs::path& path, const void* head, std::size_t head_bytes, const Bytes& data) {
  const fs::path unfinished = path.string() + ".part";
  std::ofstream out(unfinished, std::ios::binary);
  out.write(static_cast<const char*>(head), static_cast<std::streamsize>(head_bytes));
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size()));
  out.close();
  std::error_code failed;  // who waits for the file says so; destructors come here, too
  if (out) fs::rename(unfinished, path, failed);
}

Bytes read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The file of a call of rank `from` for rank `to`: "0-1-send-7".
fs::path path_of(const Clique& clique, const Call& call, int from, int to, bool other_end) {
  const bool sends = (call.name == "ncclSend") != other_end;
  const char* const kind = !call.point_to_point ? "all" : sends ? "send" : "receive";
  return fs::path(clique.folder) / (std::to_string(from) + "-" + std::to_string(to) + "-" + kind +
                                    "-" + std::to_string(call.number));
}

void post(const Launch& launch) {
  const Communicator& c = *launch.communicator;
  for (std::size_t i = 0; i < launch.calls.size(); ++i) {
    const Call& call = launch.calls[i];
    const Letter letter = letter_of(call);
    for (const int rank : partners(launch, call)) {
      if (rank == c.rank) continue;
      write_file(path_of(*c.clique, call, c.rank, rank, false), &letter, sizeof letter,
                 launch.sent[i]);
    }
  }
}

bool all_have_come(const Launch& launch) {
  const Communicator& c = *launch.communicator;
  for (const Call& call : launch.calls) {
    for (const int rank : partners(launch, call)) {
      if (rank != c.rank && !fs::exists(path_of(*c.clique, call, rank, c.rank, true))) return false;
    }
  }
  return true;
}

// The call of this launch that is the other end of one to this rank itself.
const Bytes& own_part(const Launch& launch, const Call& call) {
  for (std::size_t i = 0; i < launch.calls.size(); ++i) {
    const Call& other = launch.calls[i];
    const bool matches =
        call.point_to_point
            ? other.name == "ncclSend" && other.root == call.root && other.number == call.number
            : &other == &call;
    if (matches) return launch.sent[i];
  }
  static const Bytes none;
  return none;
}

// What `rank` has for this call. False, and a finding, when the two do not agree.
bool take(const Launch& launch, const Call& call, int rank, Bytes* data) {
  Communicator& c = *launch.communicator;
  const fs::path path = path_of(*c.clique, call, rank, c.rank, true);
  *data = read_file(path);
  fs::remove(path);
  Letter theirs;
  std::memcpy(&theirs, data->data(), sizeof theirs);
  data->erase(data->begin(), data->begin() + sizeof theirs);
  const Letter mine = letter_of(call);
  if (theirs.count == mine.count && theirs.type == mine.type &&
      (call.point_to_point ||
       (theirs.op == mine.op && theirs.root == mine.root && call.name == theirs.name))) {
    return true;
  }
  report_call(Kind::kBadCall, c.name() + " calls " + describe(call) + ", rank " +
                                  std::to_string(rank) + " " + theirs.name + " of " +
                                  std::to_string(theirs.count) + " elements of type " +
                                  std::to_string(theirs.type));
  c.error = ncclInvalidUsage;
  return false;
}

fs::path state_of(const Communicator& c, int rank, const char* state) {
  return fs::path(c.folder) / (std::to_string(rank) + "-is-" + state);
}

bool all_are(const Communicator& c, const char* state) {
  for (int rank = 0; rank < c.size; ++rank) {
    if (!fs::exists(state_of(c, rank, state))) return false;
  }
  return true;
}

}  // namespace

bool ranks_are_processes() {
  const char* const size = std::getenv("OMPI_COMM_WORLD_SIZE");
  return size && std::atoi(size) > 1;
}

void join_between_processes(Communicator& c, const std::string& folder) {
  c.folder = (fs::temp_directory_path() / ("serrate-simt-nccl-" + folder)).string();
  fs::create_directories(c.folder);
  write_file(state_of(c, c.rank, "here"), nullptr, 0, {});
}

void leave_between_processes(const Communicator& c) {
  if (c.folder.empty()) return;
  write_file(state_of(c, c.rank, "gone"), nullptr, 0, {});
  if (!all_are(c, "gone")) return;
  std::error_code another_was_faster;
  fs::remove_all(c.folder, another_was_faster);
}

bool have_joined(const Pointer& c) {
  if (c->clique || c->folder.empty()) return c->clique != nullptr;
  if (!all_are(*c, "here")) return false;
  const auto clique = std::make_shared<Clique>();
  clique->number = state().next_clique++;
  clique->folder = c->folder;
  clique->ranks.resize(static_cast<std::size_t>(c->size));
  clique->ranks[static_cast<std::size_t>(c->rank)] = c;
  c->clique = clique;
  return true;
}

void advance_between_processes(const LaunchPointer& launch) {
  if (!at_front(*launch)) return;
  const DeviceAccess access;
  if (launch->sent.empty()) {
    launch->sent = read_sends(*launch);
    post(*launch);
  }
  if (!all_have_come(*launch)) return;
  const Communicator& c = *launch->communicator;
  for (const Call& call : launch->calls) {
    std::vector<Bytes> received;
    for (const int rank : partners(*launch, call)) {
      Bytes& data = received.emplace_back();
      if (rank == c.rank) {
        data = own_part(*launch, call);
      } else if (!take(*launch, call, rank, &data)) {
        return finish(launch);
      }
    }
    if (call.name == "ncclSend") continue;
    std::vector<const Bytes*> parts;
    for (const Bytes& data : received) parts.push_back(&data);
    deliver(call, c.rank, parts);
  }
  finish(launch);
  forget_calls(*launch);
}

}  // namespace simt::nccl
