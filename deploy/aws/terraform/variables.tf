variable "name" {
  description = "Name of the function and its alarms, and the beginning of all others: a stack's name in CloudFormation."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.name))
    error_message = "name must be 1 to 20 lower-case letters, digits and hyphens, with a letter first."
  }
}

variable "table_name" {
  description = "Table of the waiting messages; that of the state gets the suffix -state."
  type        = string
  default     = "segment-messages"

  validation {
    condition     = can(regex("^([A-Za-z0-9_.-]{3,249})$", var.table_name))
    error_message = "table_name is not as its description has it."
  }
}

variable "profiles_table_name" {
  description = "Table of the profiles, for sites with PROFILES in DynamoDB. Empty for none."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(|[A-Za-z0-9_.-]{3,255})$", var.profiles_table_name))
    error_message = "profiles_table_name is not as its description has it."
  }
}

variable "write_key_secret_arn" {
  description = "Secret of Secrets Manager whose text is the write key. The site reads it when it starts."
  type        = string

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+)$", var.write_key_secret_arn))
    error_message = "write_key_secret_arn is not as its description has it."
  }
}

variable "archive_days" {
  description = "Days after which the bucket deletes what is in the archive."
  type        = number
  default     = 400

  validation {
    condition     = var.archive_days >= 1
    error_message = "archive_days is not as its description has it."
  }
}

variable "web_service" {
  description = "Where the site's web processes run."
  type        = string
  default     = "lambda.amazonaws.com"

  validation {
    condition     = contains(["lambda.amazonaws.com", "ecs-tasks.amazonaws.com", "ec2.amazonaws.com"], var.web_service)
    error_message = "web_service is not as its description has it."
  }
}

variable "worker_service" {
  description = "Where Celery's workers run, if there are any."
  type        = string
  default     = "ecs-tasks.amazonaws.com"

  validation {
    condition     = contains(["lambda.amazonaws.com", "ecs-tasks.amazonaws.com", "ec2.amazonaws.com"], var.worker_service)
    error_message = "worker_service is not as its description has it."
  }
}

variable "code_bucket" {
  description = "Bucket of the site's zipped code for the scheduled flush. Empty where Celery flushes."
  type        = string
  default     = ""
}

variable "code_key" {
  description = "Key of that zip file."
  type        = string
  default     = "site.zip"

  validation {
    condition     = length(var.code_key) >= 1
    error_message = "code_key is not as its description has it."
  }
}

variable "settings_module" {
  description = "DJANGO_SETTINGS_MODULE of the scheduled flush."
  type        = string
  default     = "settings"
}

variable "runtime" {
  description = "Lambda's runtime for the scheduled flush."
  type        = string
  default     = "python3.13"
}

variable "flush_schedule" {
  description = "When the flush runs. A lease lasts a minute, too, so whoever is killed costs one run."
  type        = string
  default     = "rate(1 minute)"
}

variable "flush_timeout" {
  description = "Seconds for one run. With the settings' defaults its last minute starts no further batch."
  type        = number
  default     = 120

  validation {
    condition     = var.flush_timeout >= 70 && var.flush_timeout <= 900
    error_message = "flush_timeout is not as its description has it."
  }
}

variable "flush_concurrency" {
  description = "How many runs there may be at once, reserved for them; more than the buffer has parts are of no use. 0 reserves none."
  type        = number
  default     = 2

  validation {
    condition     = var.flush_concurrency >= 0
    error_message = "flush_concurrency is not as its description has it."
  }
}

variable "max_age" {
  description = "Seconds after which a message that still waits is an alarm."
  type        = number
  default     = 600

  validation {
    condition     = var.max_age >= 60
    error_message = "max_age is not as its description has it."
  }
}

variable "alarm_topic_arn" {
  description = "Topic of SNS that hears of alarms. Empty for none."
  type        = string
  default     = ""
}
