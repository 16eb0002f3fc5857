# Who may do what.

locals {
  has_profiles = var.profiles_table_name != ""
  has_flush    = var.code_bucket != ""
  alarm_topics = var.alarm_topic_arn == "" ? [] : [var.alarm_topic_arn]
}

resource "aws_iam_policy" "web_policy" {
  name_prefix = "${var.name}-web-"
  description = "What the site's web processes do. For a role of your own, as Zappa makes one."
  policy      = data.aws_iam_policy_document.web_policy.json
}

data "aws_iam_policy_document" "web_policy" {
  # As `manage.py segment_table --policy` prints it.
  statement {
    actions   = ["dynamodb:PutItem", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:Scan", "dynamodb:BatchWriteItem"]
    resources = [aws_dynamodb_table.messages_table.arn]
  }

  statement {
    actions   = ["dynamodb:UpdateItem", "dynamodb:Scan", "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"]
    resources = [aws_dynamodb_table.state_table.arn]
  }

  statement {
    actions   = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]
    resources = ["${aws_s3_bucket.bucket.arn}/spool/*"]
  }

  # IfExists: a HEAD names no prefix. Only who may list hears that an object is not there.
  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.bucket.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["spool/*"]
    }
  }

  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.write_key_secret_arn]
  }

  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.queue.arn]
  }
}

resource "aws_iam_policy" "profiles_policy" {
  count = local.has_profiles ? 1 : 0

  name_prefix = "${var.name}-profiles-"
  description = "What the site's web processes do with profiles."
  policy      = data.aws_iam_policy_document.profiles_policy[0].json
}

data "aws_iam_policy_document" "profiles_policy" {
  count = local.has_profiles ? 1 : 0

  # As `manage.py segment_table --profiles --policy` prints it.
  statement {
    actions   = ["dynamodb:BatchGetItem", "dynamodb:PutItem"]
    resources = [aws_dynamodb_table.profiles_table[0].arn]
  }
}

resource "aws_iam_policy" "flush_policy" {
  name_prefix = "${var.name}-flush-"
  description = "What a flush does. It adds to the archive, and neither reads nor deletes what is there."
  policy      = data.aws_iam_policy_document.flush_policy.json
}

data "aws_iam_policy_document" "flush_policy" {
  statement {
    actions   = ["dynamodb:PutItem", "dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:Scan", "dynamodb:BatchWriteItem"]
    resources = [aws_dynamodb_table.messages_table.arn]
  }

  statement {
    actions   = ["dynamodb:UpdateItem", "dynamodb:Scan", "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"]
    resources = [aws_dynamodb_table.state_table.arn]
  }

  statement {
    actions   = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]
    resources = ["${aws_s3_bucket.bucket.arn}/spool/*"]
  }

  statement {
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.bucket.arn}/archive/*"]
  }

  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.bucket.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["spool/*"]
    }
  }

  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.write_key_secret_arn]
  }
}

resource "aws_iam_policy" "work_policy" {
  name_prefix = "${var.name}-work-"
  description = "What Celery's workers and beat do with their queue."
  policy      = data.aws_iam_policy_document.work_policy.json
}

data "aws_iam_policy_document" "work_policy" {
  statement {
    actions   = ["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
    resources = [aws_sqs_queue.queue.arn]
  }
}

resource "aws_iam_policy" "archive_policy" {
  name_prefix = "${var.name}-archive-"
  description = "For people who run segment_archive, segment_replay, segment_forget and segment_counts --rebuild. In no role."
  policy      = data.aws_iam_policy_document.archive_policy.json
}

data "aws_iam_policy_document" "archive_policy" {
  statement {
    actions   = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"]
    resources = ["${aws_s3_bucket.bucket.arn}/archive/*"]
  }

  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.bucket.arn]

    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["archive/*"]
    }
  }
}

data "aws_iam_policy_document" "log" {
  count = local.has_flush ? 1 : 0

  statement {
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.flush_log[0].arn}:*"]
  }
}

data "aws_iam_policy_document" "assume" {
  for_each = toset([var.web_service, var.worker_service, "lambda.amazonaws.com"])

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

resource "aws_iam_role" "web_role" {
  name_prefix        = "${var.name}-web-"
  assume_role_policy = data.aws_iam_policy_document.assume[var.web_service].json
}

resource "aws_iam_role_policy_attachment" "web_role_web_policy" {
  role       = aws_iam_role.web_role.name
  policy_arn = aws_iam_policy.web_policy.arn
}

resource "aws_iam_role_policy_attachment" "web_role_profiles_policy" {
  count = local.has_profiles ? 1 : 0

  role       = aws_iam_role.web_role.name
  policy_arn = aws_iam_policy.profiles_policy[0].arn
}

resource "aws_iam_role" "worker_role" {
  name_prefix        = "${var.name}-worker-"
  assume_role_policy = data.aws_iam_policy_document.assume[var.worker_service].json
}

resource "aws_iam_role_policy_attachment" "worker_role_flush_policy" {
  role       = aws_iam_role.worker_role.name
  policy_arn = aws_iam_policy.flush_policy.arn
}

resource "aws_iam_role_policy_attachment" "worker_role_work_policy" {
  role       = aws_iam_role.worker_role.name
  policy_arn = aws_iam_policy.work_policy.arn
}

resource "aws_iam_role" "flush_role" {
  count = local.has_flush ? 1 : 0

  name_prefix        = "${var.name}-flush-"
  assume_role_policy = data.aws_iam_policy_document.assume["lambda.amazonaws.com"].json
}

resource "aws_iam_role_policy_attachment" "flush_role_flush_policy" {
  count = local.has_flush ? 1 : 0

  role       = aws_iam_role.flush_role[0].name
  policy_arn = aws_iam_policy.flush_policy.arn
}

resource "aws_iam_role_policy" "flush_role_log" {
  count = local.has_flush ? 1 : 0

  name   = "log"
  role   = aws_iam_role.flush_role[0].id
  policy = data.aws_iam_policy_document.log[0].json
}
