#pragma once

#include "common/epilogue.h"
