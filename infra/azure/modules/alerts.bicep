// Alarms on the platform itself. Alerts about pipelines are the control plane's own; these ring when it cannot raise them any more.

@description('Start of the rules\' names.')
param namePrefix string

@description('Azure region of the log rules.')
param location string

@description('Tags of every resource.')
param tags object

@description('Mail addresses that are told.')
param emails array

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

@description('Resource id of the Service Bus namespace.')
param serviceBusId string

@description('Resource id of the storage account.')
param storageAccountId string

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${namePrefix}-people'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'data-sync'
    enabled: true
    emailReceivers: [for email in emails: {
      name: email
      emailAddress: email
      useCommonAlertSchema: true
    }]
  }
}

resource deadLetters 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${namePrefix}-dead-letters'
  location: 'global'
  tags: tags
  properties: {
    description: 'A queue holds dead letters: a message failed ten times or expired. Read its reason, mend the cause, send it again.'
    severity: 2
    enabled: true
    autoMitigate: true
    scopes: [serviceBusId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'dead-letters'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.ServiceBus/namespaces'
          metricName: 'DeadletteredMessages'
          timeAggregation: 'Maximum'
          operator: 'GreaterThan'
          threshold: 0
          dimensions: [
            {
              name: 'EntityName'
              operator: 'Include'
              values: ['*']
            }
          ]
        }
      ]
    }
    actions: [
      {
        actionGroupId: people.id
      }
    ]
  }
}

resource rejected 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${namePrefix}-rejected'
  location: 'global'
  tags: tags
  properties: {
    description: 'sync-rejected holds messages that could not be understood. The property reason of each says why; tell its sender.'
    severity: 2
    enabled: true
    autoMitigate: true
    scopes: [serviceBusId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'rejected'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.ServiceBus/namespaces'
          metricName: 'ActiveMessages'
          timeAggregation: 'Maximum'
          operator: 'GreaterThan'
          threshold: 0
          dimensions: [
            {
              name: 'EntityName'
              operator: 'Include'
              values: ['sync-rejected']
            }
          ]
        }
      ]
    }
    actions: [
      {
        actionGroupId: people.id
      }
    ]
  }
}

resource backlog 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${namePrefix}-backlog'
  location: 'global'
  tags: tags
  properties: {
    description: 'A queue has not been empty for half an hour: its function does not run, or does not keep up.'
    severity: 2
    enabled: true
    autoMitigate: true
    scopes: [serviceBusId]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT30M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'backlog'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.ServiceBus/namespaces'
          metricName: 'ActiveMessages'
          timeAggregation: 'Minimum'
          operator: 'GreaterThan'
          threshold: 0
          dimensions: [
            {
              name: 'EntityName'
              operator: 'Include'
              values: ['sync-requests', 'sync-runs', 'sync-completions']
            }
          ]
        }
      ]
    }
    actions: [
      {
        actionGroupId: people.id
      }
    ]
  }
}

resource throttling 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${namePrefix}-storage-throttling'
  location: 'global'
  tags: tags
  properties: {
    description: 'The storage account turns requests away. They are tried again, so nothing is lost yet; see how many pipelines tick at once.'
    severity: 2
    enabled: true
    autoMitigate: true
    scopes: [storageAccountId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'throttling'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.Storage/storageAccounts'
          metricName: 'Transactions'
          timeAggregation: 'Total'
          operator: 'GreaterThan'
          threshold: 20
          dimensions: [
            {
              name: 'ResponseType'
              operator: 'Include'
              values: [
                'ClientThrottlingError'
                'ClientAccountRequestThrottlingError'
                'ClientAccountBandwidthThrottlingError'
                'ServerBusyError'
              ]
            }
          ]
        }
      ]
    }
    actions: [
      {
        actionGroupId: people.id
      }
    ]
  }
}

// A single failure heals itself: timers come again within minutes, messages are delivered ten times. 4xx is the caller's.
resource failures 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: '${namePrefix}-function-failures'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: '${namePrefix}-function-failures'
    description: 'One function failed three times or more within 15 minutes. Its exceptions are in AppExceptions under the same operation.'
    severity: 1
    enabled: true
    autoMitigate: true
    scopes: [workspaceId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    // The tables come with the first telemetry, after this rule.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: 'AppRequests | where Success == false and ResultCode !startswith "4"'
          timeAggregation: 'Count'
          operator: 'GreaterThanOrEqual'
          threshold: 3
          dimensions: [
            {
              name: 'OperationName'
              operator: 'Include'
              values: ['*']
            }
          ]
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: [people.id]
    }
  }
}

// The dead man's switch: it rings when nothing else can. Count of no rows at all is 0, so it rings without any telemetry too.
resource silence 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: '${namePrefix}-no-tick'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: '${namePrefix}-no-tick'
    description: 'No tick succeeded for 10 minutes: nothing that is due is begun. See docs/azure.md, when it does not tick.'
    severity: 0
    enabled: true
    autoMitigate: true
    scopes: [workspaceId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT10M'
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: 'AppRequests | where Success == true and (OperationName has "tick" or Name has "tick")'
          timeAggregation: 'Count'
          operator: 'LessThan'
          threshold: 1
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: [people.id]
    }
  }
}

output actionGroupId string = people.id
