#include "serrate/data_type.h"

#include "serrate/error.h"

namespace serrate {

std::string to_string(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return "fp32";
    case DataType::kFloat16:
      return "fp16";
    case DataType::kBFloat16:
      return "bf16";
  }
  throw Error("DataType out of range");
}

DataType data_type_from_string(const std::string& name) {
  for (const auto type : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
    if (name == to_string(type)) return type;
  }
  throw usage_error("no data type \"" + name + "\" (there are fp32, fp16, bf16)");
}

}  // namespace serrate
