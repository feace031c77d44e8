#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "cpu/threads.h"

namespace patchcut {
namespace {

// CPUs this process may run on; empty where the system does not tell.
std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  // The kernel refuses a set smaller than its own.
  for (int room = 1024; room <= 1 << 16; room *= 4) {
    cpu_set_t* set = CPU_ALLOC(room);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(room);
    const bool told = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; told && cpu < room; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (told) break;
  }
#endif
  return cpus;
}

// Hyper-threads of one core count once.
int physical_cores(const std::string& root) {
  std::set<std::string> cores;
  for (const int cpu : allowed_cpus()) {
    const std::string name = std::to_string(cpu);
    std::ifstream file(root + "/sys/devices/system/cpu/cpu" + name + "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(std::getline(file, siblings) ? siblings : name);
  }
  return static_cast<int>(cores.empty() ? std::thread::hardware_concurrency() : cores.size());
}

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

// CPUs that "quota period" grants; "max 100000" and -1 are no limit.
double quota_cpus(std::istream& text) {
  double quota = 0;
  double period = 0;
  return text >> quota >> period && quota > 0 && period > 0 ? quota / period : kNoQuota;
}

double group_quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  return quota_cpus(file);
}

double group_quota_v1(const std::string& folder) {
  std::stringstream text;
  for (const char* name : {"/cpu.cfs_quota_us", "/cpu.cfs_period_us"}) {
    std::ifstream file(folder + name);
    std::string value;
    if (file >> value) text << value << ' ';
  }
  return quota_cpus(text);
}

// The least quota of a group and of those above it. In a container the group's path may be that of the host:
// the root of the mount is then the group itself.
double least_quota(const std::string& mount, std::string group, double (*group_quota)(const std::string&)) {
  double least = group_quota(mount);
  while (!group.empty() && group != "/") {
    least = std::min(least, group_quota(mount + group));
    group.resize(group.find_last_of('/'));
  }
  return least;
}

bool holds_cpu(const std::string& controllers) {
  std::stringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

// Lines of /proc/self/cgroup are "0::/group" (version 2) and "4:cpu,cpuacct:/group" (version 1).
double cpu_quota(const std::string& root) {
  const std::string mounts = root + "/sys/fs/cgroup";
  double least = kNoQuota;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line[second + 1] != '/') continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      least = std::min(least, least_quota(mounts, group, group_quota_v2));
      least = std::min(least, least_quota(mounts + "/unified", group, group_quota_v2));
    } else if (holds_cpu(controllers)) {
      least = std::min(least, least_quota(mounts + "/" + controllers, group, group_quota_v1));
      least = std::min(least, least_quota(mounts + "/cpu", group, group_quota_v1));
    }
  }
  return least;
}

}  // namespace

int default_threads(const std::string& root) {
  // A thread beyond the quota only brings the moment forward at which all of them are stopped.
  const double least = std::min<double>(physical_cores(root), std::floor(cpu_quota(root)));
  return static_cast<int>(std::max(1.0, std::min(least, 256.0)));
}

}  // namespace patchcut
